using Ledger.EventStore;
using EventId = Ledger.EventStore.EventId;

namespace Ledger;

/// <summary>Who asks, for which tenant, as part of what, and under which idempotency key.</summary>
public sealed record CommandContext(string TenantId, string? Actor, string? CorrelationId, string? IdempotencyKey = null, string? Fingerprint = null)
{
    /// <summary>The tenant of who asks, whose idempotency key it is: another one than that of the events only for what is kept with the operator's.</summary>
    public string CallerTenantId { get; init; } = TenantId;
}

/// <summary>
/// A decision with what it rests on: the stream its events belong to, and the versions (its own stream's among them) that must
/// still hold when they are stored.
/// </summary>
public sealed record Decided(Decision Decision, string StreamId, string StreamType, params IReadOnlyList<StreamCondition> Conditions)
{
    /// <summary>What the same facts mean for other streams: stored right after the decision's events, in the same transaction.</summary>
    public IReadOnlyList<StreamAppend> Beside { get; init; } = [];
}

/// <summary>What became of a command.</summary>
public sealed record CommandResult
{
    /// <summary>The rule that refused it; then nothing was stored.</summary>
    public Rejection? Rejection { get; init; }

    /// <summary>The position of its last event; for a command that changed nothing, the head of the log.</summary>
    public long Position { get; init; }

    /// <summary>The position of its first event; 0 for a command that changed nothing.</summary>
    public long FirstPosition { get; init; }

    /// <summary>The version of its stream after it.</summary>
    public long Version { get; init; }

    /// <summary>When its events were recorded.</summary>
    public DateTimeOffset RecordedAt { get; init; }

    /// <summary>Whether this is the outcome of an earlier request with the same key.</summary>
    public bool Replayed { get; init; }

    /// <summary>Whether anything was stored, now or by the request this one repeats.</summary>
    public bool Changed => FirstPosition > 0;
}

/// <summary>Load, decide, append; and once more when what the decision rested on has changed meanwhile.</summary>
public sealed class CommandHandler(Appender appender, EventReader reader)
{
    /// <summary>How often a command is decided before it is answered with <c>version-conflict</c>.</summary>
    public const int MaxAttempts = 10;

    /// <summary>
    /// Runs a command. <paramref name="decide"/> loads state and decides; its argument is the number of the attempt, from 0.
    /// A command whose idempotency key is known is not decided again: the first outcome is the answer.
    /// </summary>
    public async Task<CommandResult> Handle(CommandContext context, Func<int, Task<Decided>> decide, CancellationToken cancellation)
    {
        Guid? id = context.IdempotencyKey is { } key ? EventId.From(context.CallerTenantId, "command", key) : null;
        if (await FindFirst() is { } known)
        {
            return known;
        }

        for (var attempt = 0; attempt < MaxAttempts; attempt++)
        {
            var decided = await decide(attempt);
            if (decided.Decision.Rejection is { } rejection)
            {
                // The same request, sent twice at once, may have succeeded and be what this one was refused for.
                return await FindFirst() ?? new CommandResult { Rejection = rejection };
            }

            if (decided.Decision.Events.Count == 0)
            {
                return new CommandResult { Position = await reader.ReadHead(cancellation), Version = decided.Conditions[0].ExpectedVersion };
            }

            var result = await appender.Append(
                new AppendRequest
                {
                    TenantId = context.TenantId,
                    Appends = [new StreamAppend(decided.StreamId, decided.StreamType, decided.Decision.Events), .. decided.Beside],
                    Conditions = decided.Conditions,
                    IdempotencyId = id,
                    Fingerprint = context.Fingerprint,
                    Actor = context.Actor,
                    CorrelationId = context.CorrelationId,
                },
                cancellation);
            switch (result.Outcome)
            {
                case AppendOutcome.Appended or AppendOutcome.Duplicate:
                    return new CommandResult
                    {
                        FirstPosition = result.FirstPosition,
                        Position = result.LastPosition,
                        Version = result.Version,
                        RecordedAt = result.RecordedAt,
                        Replayed = result.Outcome == AppendOutcome.Duplicate,
                    };
                case AppendOutcome.KeyReused:
                    return KeyReused();
            }
        }

        return new CommandResult
        {
            Rejection = new Rejection("version-conflict", $"What the command rests on changed {MaxAttempts} times while it was decided. Send it again."),
        };

        async Task<CommandResult?> FindFirst()
        {
            if (id is null || await reader.FindRequest(context.TenantId, id.Value, cancellation) is not { } stored)
            {
                return null;
            }

            return stored.Fingerprint != context.Fingerprint ? KeyReused() : new CommandResult
            {
                FirstPosition = stored.FirstPosition,
                Position = stored.LastPosition,
                Version = stored.LastVersion,
                RecordedAt = stored.RecordedAt,
                Replayed = true,
            };
        }

        CommandResult KeyReused() => new()
        {
            Rejection = new Rejection("idempotency-key-reused", $"The key '{context.IdempotencyKey}' was used before for another request."),
        };
    }
}
