using Ledger.EventStore;
using Ledger.Http;
using Ledger.Users;

namespace Ledger.Segments;

/// <summary>Runs an import: while one chunk is being stored, the next ones are read, loaded and decided.</summary>
public sealed class MembersImport(MembershipLoader users, SegmentLoader segments, Appender appender, EventReader reader, LedgerClock clock)
{
    /// <summary>Chunks that are being loaded, decided and stored at the same time.</summary>
    public const int MaxChunksInFlight = 3;

    /// <summary>Runs it. Refused as a whole only when there is no such segment at the start.</summary>
    public async Task<(ImportReceipt Receipt, long Position, Rejection? Rejection)> Run(
        CommandContext context, string slug, IAsyncEnumerable<IReadOnlyList<Line>> chunks, bool isCsv, CancellationToken cancellation)
    {
        var import = new Import(context, slug, users, segments, appender, clock);
        if (!(await segments.Load(context.TenantId, slug, fresh: true, cancellation)).IsLive)
        {
            return (import.Receipt, 0, SegmentRejections.NotFound(slug));
        }

        var storing = new Queue<(HashSet<string> Users, Task Task)>();
        try
        {
            await foreach (var chunk in chunks.WithCancellation(cancellation))
            {
                var lines = chunk.Where(line => !(isCsv && ImportLine.IsHeader(line))).Select(line => ImportLine.Read(line, isCsv)).ToArray();
                var named = lines.Where(line => line.Rejection is null).Select(line => line.UserId).ToHashSet();
                // A user's lines take effect in their order, so chunks that share a user do not overlap.
                while (storing.Count >= MaxChunksInFlight || storing.Any(s => s.Users.Overlaps(named)))
                {
                    await storing.Dequeue().Task;
                }

                storing.Enqueue((named, import.Store(lines, cancellation)));
            }

            while (storing.TryDequeue(out var last))
            {
                await last.Task;
            }
        }
        catch (Exception exception) when (RefusedRequestException.IsUnavailable(exception))
        {
            throw RefusedRequestException.OfStream(import.Receipt.Received - import.Receipt.Rejected, import.Position);
        }
        finally
        {
            await Task.WhenAll(storing.Select(s => s.Task)).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing); // what began is stored, whatever else failed
        }

        return (import.Receipt, import.Position > 0 ? import.Position : await reader.ReadHead(cancellation), null);
    }

    private enum Outcome
    {
        AlreadyMember,
        Joined,
        Renewed,
        Rejected,
    }

    /// <summary>The lines of a chunk that name one user: what is stored of them is one request.</summary>
    private sealed record UserLines(string UserId, ImportLine[] Lines);

    private sealed class Import(
        CommandContext context, string slug, MembershipLoader users, SegmentLoader segments, Appender appender, LedgerClock clock)
    {
        /// <summary>A line makes one event; that an earlier membership has run out makes one more.</summary>
        private const int MaxLinesOfUser = EventStoreOptions.MaxRequestEvents - 1;

        private readonly Lock _lock = new();
        private readonly long[] _outcomes = new long[4];
        private readonly SortedList<long, RejectedLine> _rejections = new(RejectedLine.MaxNamed);

        public long Position { get; private set; }

        public ImportReceipt Receipt
        {
            get
            {
                lock (_lock)
                {
                    return new(
                        _outcomes.Sum(), _outcomes[(int)Outcome.Joined], _outcomes[(int)Outcome.Renewed], _outcomes[(int)Outcome.AlreadyMember],
                        _outcomes[(int)Outcome.Rejected], [.. _rejections.Values]);
                }
            }
        }

        /// <summary>Stores a chunk; users whose stream changed meanwhile are loaded and decided again.</summary>
        public async Task Store(IReadOnlyList<ImportLine> lines, CancellationToken cancellation)
        {
            foreach (var line in lines)
            {
                if (line.Rejection is { } rejection)
                {
                    Reject(line.Number, rejection);
                }
            }

            var users = lines.Where(l => l.Rejection is null).GroupBy(l => l.UserId, (id, its) => new UserLines(id, [.. its]))
                .OrderBy(u => u.UserId, StringComparer.Ordinal).ToArray(); // so that neighbours in an index are touched together
            while (users.Length > 0)
            {
                await StoreUntilDone(Array.ConvertAll(users, u => u with { Lines = [.. u.Lines.Take(MaxLinesOfUser)] }), cancellation);
                users = [.. users.Where(u => u.Lines.Length > MaxLinesOfUser).Select(u => u with { Lines = u.Lines[MaxLinesOfUser..] })];
            }
        }

        private async Task StoreUntilDone(UserLines[] pending, CancellationToken cancellation)
        {
            for (var attempt = 0; pending.Length > 0; attempt++)
            {
                var left = await TryStore(pending, cancellation);
                if (left.Length > 0 && attempt == CommandHandler.MaxAttempts)
                {
                    var conflict = new Rejection("version-conflict", "The user's memberships kept changing meanwhile.");
                    foreach (var line in left.SelectMany(l => l.Lines))
                    {
                        Reject(line.Number, conflict);
                    }

                    return;
                }

                pending = left;
            }
        }

        private async Task<UserLines[]> TryStore(UserLines[] pending, CancellationToken cancellation)
        {
            var segment = await segments.Load(context.TenantId, slug, fresh: true, cancellation);
            var loaded = segment.IsLive
                ? await users.Load(context.TenantId, Array.ConvertAll(pending, p => p.UserId), segment.Id, cancellation)
                : [.. pending.Select(_ => new LoadedMemberships(UserMemberships.None, 0))];
            var now = clock.GetUtcNow();
            var appends = new List<AppendRequest>(pending.Length);
            var places = new List<int>(pending.Length);
            var decided = new List<(ImportLine Line, Outcome Outcome, Rejection? Rejection)>[pending.Length];
            var onSegment = new StreamCondition(Segment.StreamOf(slug), segment.Version);
            for (var i = 0; i < pending.Length; i++)
            {
                (var events, decided[i]) = Decide(pending[i], loaded[i], segment, now);
                if (events.Count > 0)
                {
                    var stream = User.StreamOf(pending[i].UserId);
                    places.Add(i);
                    appends.Add(new AppendRequest
                    {
                        TenantId = context.TenantId,
                        Appends = [new StreamAppend(stream, User.StreamType, events)],
                        Conditions = [new StreamCondition(stream, loaded[i].Version), onSegment],
                        Actor = context.Actor,
                        CorrelationId = context.CorrelationId,
                    });
                }
                else
                {
                    Count(decided[i], position: 0);
                }
            }

            var left = new List<UserLines>();
            foreach (var (place, result) in places.Zip(await appender.AppendMany(appends)))
            {
                if (result.Outcome == AppendOutcome.ConditionFailed)
                {
                    left.Add(pending[place]);
                }
                else
                {
                    Count(decided[place], result.LastPosition);
                }
            }

            return [.. left];
        }

        /// <summary>Decides a user's lines, in their order, each on what the one before has made of the user.</summary>
        private static (List<object> Events, List<(ImportLine Line, Outcome Outcome, Rejection? Rejection)> Decided) Decide(
            UserLines user, LoadedMemberships loaded, Segment segment, DateTimeOffset now)
        {
            var state = loaded.State;
            var events = new List<object>();
            var decided = new List<(ImportLine, Outcome, Rejection?)>();
            foreach (var line in user.Lines)
            {
                var decision = new ChangeMemberships(line.UserId, [new Join(segment.Slug, line.Term)], []).Decide(state, [segment], now, Membership.Import);
                var outcome = decision.Events.Count == 0 ? Outcome.AlreadyMember
                    : decision.Events[^1] is MembershipRenewed ? Outcome.Renewed
                    : Outcome.Joined;
                decided.Add((line, outcome, decision.Rejection is { } rejection ? ChangeMemberships.OfOnlyJoin(rejection) : null));
                events.AddRange(decision.Events);
                if (decided.Count < user.Lines.Length)
                {
                    state = decision.Events.Aggregate(state, (s, e) => UserMemberships.Evolve(s, new RecordedEvent
                    {
                        Data = e, RecordedAt = now, Position = 0, Version = 0, Id = default, TenantId = "", StreamId = "", Type = "", Json = default,
                    }));
                }
            }

            return (events, decided);
        }

        private void Count(List<(ImportLine Line, Outcome Outcome, Rejection? Rejection)> decided, long position)
        {
            lock (_lock)
            {
                Position = Math.Max(Position, position);
                foreach (var (line, outcome, rejection) in decided)
                {
                    if (rejection is not null)
                    {
                        Reject(line.Number, rejection);
                    }
                    else
                    {
                        _outcomes[(int)outcome]++;
                    }
                }
            }
        }

        private void Reject(long line, Rejection rejection)
        {
            lock (_lock)
            {
                _outcomes[(int)Outcome.Rejected]++;
                if (_rejections.Count == RejectedLine.MaxNamed)
                {
                    // A malformed line is refused at once, and may be so before earlier lines whose users are still being loaded.
                    var last = _rejections.GetKeyAtIndex(_rejections.Count - 1);
                    if (line > last)
                    {
                        return;
                    }

                    _rejections.Remove(last);
                }

                _rejections.Add(line, RejectedLine.Of(line, rejection));
            }
        }
    }
}
