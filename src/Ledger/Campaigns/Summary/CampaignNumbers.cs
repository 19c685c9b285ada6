namespace Ledger.Campaigns;

/// <summary>A campaign in the summary of a day.</summary>
/// <param name="TenantId">Whose it is.</param>
/// <param name="CampaignId">Its id.</param>
/// <param name="Name">What people call it.</param>
/// <param name="Messages">How many of its messages came into which state that day, by the state's name.</param>
public sealed record CampaignNumbers(string TenantId, string CampaignId, string Name, IReadOnlyDictionary<string, long> Messages);

/// <summary>Where the numbers of a summary come from.</summary>
public interface ICampaignNumbers
{
    /// <summary>The campaigns of all tenants of which a message came into another state in [<paramref name="from"/>, <paramref name="to"/>), in a fixed order.</summary>
    Task<IReadOnlyList<CampaignNumbers>> Read(DateTimeOffset from, DateTimeOffset to, CancellationToken cancellation);
}
