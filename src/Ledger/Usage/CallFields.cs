namespace Ledger.Usage;

/// <summary>What the fields of a call are called where it was read, so that whoever is refused finds what is wrong.</summary>
public sealed record CallFields(string Id, string Source, string UserId, string ServiceId, string OccurredAt, string Quantities, string Tags)
{
    /// <summary>As in a <see cref="CallBody"/>.</summary>
    public static readonly CallFields Plain = new("id", "source", "userId", "serviceId", "occurredAt", "quantities", "tags");
}
