using System.Runtime.CompilerServices;
using System.Text.Json;
using Ledger.EventStore;
using Ledger.Http;
using Ledger.Segments;
using Ledger.Usage;
using Ledger.Users;
using Npgsql;

namespace Ledger.History;

/// <summary>
/// A user's history: the events of the user's stream, of the user's calls, and those of segments that moved the user without an
/// event of the user. Each comes off an index of its own, in order of position; they are merged as they are read.
/// </summary>
public sealed class UserHistory(ViewDatabase views, EventReader log, LogTimes times, CallsOfUser calls, RolloutTurns rollouts, StaysAtDeletion stays)
{
    /// <summary>Positions of a stream or of corrections read at once.</summary>
    public const int MaxPositionsAtOnce = 1_000;

    private const int FirstPositions = 100;

    /// <summary>The entries after one position and up to another that the query asks for, streamed; no connection is held between them.</summary>
    internal async IAsyncEnumerable<HistoryEntry> Entries(
        string tenantId, HistoryFilter filter, long after, long upTo, int atOnce, [EnumeratorCancellation] CancellationToken cancellation)
    {
        var waiting = new List<Candidate>();
        await foreach (var candidate in Merge(Sources(tenantId, filter, after, upTo, cancellation), filter.NewestFirst, cancellation))
        {
            waiting.Add(candidate);
            if (waiting.Count >= atOnce)
            {
                foreach (var entry in await Render(tenantId, waiting, filter, cancellation))
                {
                    yield return entry;
                }

                waiting.Clear();
            }
        }

        foreach (var entry in await Render(tenantId, waiting, filter, cancellation))
        {
            yield return entry;
        }
    }

    /// <summary>An event of the user, or what an event of a segment meant for the user.</summary>
    private sealed record Candidate(long Position, Func<RecordedEvent, HistoryEntry>? Meaning = null);

    /// <summary>Where entries may come from, given what else they must be.</summary>
    private IEnumerable<IAsyncEnumerable<Candidate>> Sources(string tenantId, HistoryFilter filter, long after, long upTo, CancellationToken cancellation)
    {
        var user = filter.User!;
        if (filter.Service is null)
        {
            yield return Stream(new StreamKey(tenantId, User.StreamOf(user)), after, upTo, filter.NewestFirst, cancellation);
            yield return Rollouts(tenantId, user, after, upTo, filter.NewestFirst, cancellation);
        }

        if (filter.Segment is null)
        {
            if (filter.Kind is null || filter.Kind == HistoryKinds.Of("call_recorded"))
            {
                yield return Calls(tenantId, user, filter.Service, after, upTo, filter.NewestFirst, cancellation);
            }

            yield return Corrections(tenantId, user, after, upTo, filter.NewestFirst, cancellation);
        }
    }

    private async IAsyncEnumerable<Candidate> Stream(
        StreamKey stream, long after, long upTo, bool newestFirst, [EnumeratorCancellation] CancellationToken cancellation)
    {
        var (first, last) = (await times.VersionAt(stream, after, cancellation) + 1, await times.VersionAt(stream, upTo, cancellation));
        for (var wanted = FirstPositions; first <= last; wanted = MaxPositionsAtOnce)
        {
            var (from, to) = newestFirst ? (Math.Max(first, last - wanted + 1), last) : (first, Math.Min(last, first + wanted - 1));
            var positions = await Positions(
                stream.TenantId,
                $"""
                 select e.seq_id from mt_events e
                 where e.tenant_id = $1 and e.stream_id = $2 and e.version between $3 and $4 order by e.version {(newestFirst ? "desc" : "")}
                 """,
                [Sql.Value(stream.TenantId), Sql.Value(stream.StreamId), Sql.Value(from), Sql.Value(to)], cancellation);
            foreach (var position in positions)
            {
                yield return new Candidate(position);
            }

            (first, last) = newestFirst ? (first, from - 1) : (to + 1, last);
        }
    }

    private async IAsyncEnumerable<Candidate> Calls(
        string tenantId, string user, string? service, long after, long upTo, bool newestFirst, [EnumeratorCancellation] CancellationToken cancellation)
    {
        var wanted = MaxPositionsAtOnce;
        IReadOnlyList<long> positions;
        do
        {
            positions = await calls.Positions(tenantId, user, service, after, upTo, newestFirst, wanted, cancellation);
            foreach (var position in positions)
            {
                yield return new Candidate(position);
            }

            if (positions.Count < wanted)
            {
                yield break;
            }

            (after, upTo) = newestFirst ? (after, positions[^1] - 1) : (positions[^1], upTo);
            wanted = CallsOfUser.MaxPositionsAtOnce; // whoever reads on gets them all, and each reading looks at all of them
        }
        while (true);
    }

    private async IAsyncEnumerable<Candidate> Corrections(
        string tenantId, string user, long after, long upTo, bool newestFirst, [EnumeratorCancellation] CancellationToken cancellation)
    {
        IReadOnlyList<long> positions;
        do
        {
            positions = await Positions(
                tenantId,
                $"""
                 select c.position from history_corrections c
                 where c.tenant_id = $1 and c.user_id = $2 and c.position > $3 and c.position <= $4
                 order by c.position {(newestFirst ? "desc" : "")} limit $5
                 """,
                [Sql.Value(tenantId), Sql.Value(user), Sql.Value(after), Sql.Value(upTo), Sql.Value(MaxPositionsAtOnce)], cancellation);
            foreach (var position in positions)
            {
                yield return new Candidate(position);
            }

            if (positions.Count > 0)
            {
                (after, upTo) = newestFirst ? (after, positions[^1] - 1) : (positions[^1], upTo);
            }
        }
        while (positions.Count == MaxPositionsAtOnce);
    }

    private async IAsyncEnumerable<Candidate> Rollouts(
        string tenantId, string user, long after, long upTo, bool newestFirst, [EnumeratorCancellation] CancellationToken cancellation)
    {
        await foreach (var page in rollouts.Pages(tenantId, after, upTo, newestFirst, cancellation))
        {
            var atDeletion = await stays.Of(tenantId, user, [.. page.Where(t => t.Deleted).Select(t => t.SegmentId)], cancellation);
            foreach (var turn in page)
            {
                if (MeaningOf(turn, user, turn.Deleted ? atDeletion.GetValueOrDefault(turn.SegmentId) : null) is { } meaning)
                {
                    yield return new Candidate(turn.Position, meaning);
                }
            }
        }
    }

    /// <summary>What a turn meant for a user; null: nothing.</summary>
    private static Func<RecordedEvent, HistoryEntry>? MeaningOf(RolloutTurn turn, string user, StayAtDeletion? stay)
    {
        var moved = turn.Moves(user, out var bucket);
        var held = stay is not null && (stay.ExpiresAt is null || stay.ExpiresAt > turn.At);
        if (turn.Deleted && (held || moved is false))
        {
            return Entry(HistoryKinds.RemovedByDeletion, turn.At, new { source = held ? stay!.Source : Membership.ByRollout });
        }

        if (moved is { } into)
        {
            return Entry(into ? HistoryKinds.RolledIn : HistoryKinds.RolledOut, turn.At, new
            {
                bucket, percentBefore = Decimals.Format(turn.PercentBefore), percent = Decimals.Format(turn.Percent),
            });
        }

        // It had run out by then, which nobody has recorded: with the segment, the sweeper's interest in it ended.
        return stay is null ? null : Entry(HistoryKinds.Of("membership_expired"), stay.ExpiresAt!.Value, new { expiresAt = Rfc3339.Format(stay.ExpiresAt.Value) });

        Func<RecordedEvent, HistoryEntry> Entry<TDetail>(string kind, DateTimeOffset at, TDetail detail) => recorded => new HistoryEntry(
            recorded.Position, at, recorded.RecordedAt, kind, user, turn.Segment, null, recorded.Actor,
            JsonSerializer.SerializeToElement(detail).EnumerateObject().ToDictionary(d => d.Name, d => d.Value));
    }

    private async Task<IReadOnlyList<HistoryEntry>> Render(
        string tenantId, List<Candidate> candidates, HistoryFilter filter, CancellationToken cancellation)
    {
        var events = (await log.ReadAt(tenantId, [.. candidates.Select(c => c.Position)], cancellation)).ToDictionary(e => e.Position);
        return
        [
            .. candidates.Select(c => c.Meaning is null ? HistoryEntry.Of(events[c.Position]) : c.Meaning(events[c.Position])).Where(filter.Lets),
        ];
    }

    /// <summary>Merges sources that are in order; no two of them have a position in common.</summary>
    private static async IAsyncEnumerable<Candidate> Merge(
        IEnumerable<IAsyncEnumerable<Candidate>> sources, bool newestFirst, [EnumeratorCancellation] CancellationToken cancellation)
    {
        var heads = new PriorityQueue<IAsyncEnumerator<Candidate>, long>();
        try
        {
            foreach (var source in sources)
            {
                await Put(source.GetAsyncEnumerator(cancellation));
            }

            while (heads.TryDequeue(out var head, out _))
            {
                yield return head.Current;
                await Put(head);
            }
        }
        finally
        {
            foreach (var (head, _) in heads.UnorderedItems)
            {
                await head.DisposeAsync();
            }
        }

        async Task Put(IAsyncEnumerator<Candidate> source)
        {
            if (await source.MoveNextAsync())
            {
                heads.Enqueue(source, newestFirst ? -source.Current.Position : source.Current.Position);
            }
            else
            {
                await source.DisposeAsync();
            }
        }
    }

    private async Task<IReadOnlyList<long>> Positions(
        string tenantId, string statement, NpgsqlParameter[] parameters, CancellationToken cancellation) =>
        await views.Rows(tenantId, Sql.Command(statement, parameters), row => row.GetInt64(0), cancellation);
}
