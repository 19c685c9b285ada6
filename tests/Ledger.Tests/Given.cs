using Ledger.EventStore;
using Npgsql;

namespace Ledger.Tests;

/// <summary>Events as they would stand in the log, a minute apart, for folding.</summary>
public static class Given
{
    public static RecordedEvent[] Stream(string streamId, params object[] events) =>
        [.. events.Select((data, i) => Recorded(streamId, data, i + 1, TestClock.Start.AddMinutes(i + 1), i + 1))];

    public static RecordedEvent Recorded(string streamId, object data, long position, DateTimeOffset at, long version) => new()
    {
        Position = position, Id = Guid.CreateVersion7(), TenantId = Requests.DefaultTenant, StreamId = streamId, Version = version,
        Type = EventTypes.MartenAlias(data.GetType()), RecordedAt = at, Json = default, Data = data,
    };

    /// <summary>Has a view fold a batch, as the daemon does, in a transaction that has begun on a connection.</summary>
    public static async Task Write(this IProjection view, IReadOnlyList<RecordedEvent> batch, NpgsqlConnection connection, CancellationToken cancellation)
    {
        var transaction = new ViewTransaction(connection);
        await view.Project(batch, transaction, cancellation);
        await transaction.Send(cancellation);
    }

    /// <summary>Checks that a decision stores exactly these events, records compared by value.</summary>
    public static void Then(this Decision decision, params object[] events)
    {
        Assert.Null(decision.Rejection);
        Assert.Equal(events, decision.Events);
    }

    /// <summary>Checks that a decision refuses with a code.</summary>
    public static Rejection ThenRefused(this Decision decision, string code)
    {
        Assert.Empty(decision.Events);
        Assert.Equal(code, decision.Rejection?.Code);
        return decision.Rejection!;
    }
}
