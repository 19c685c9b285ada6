using Ledger.EventStore;
using Ledger.Keys;
using Microsoft.Extensions.DependencyInjection;

namespace Ledger.Tests.Keys;

/// <summary>Keys made as the command line makes them.</summary>
internal static class GivenKeys
{
    public static async Task<KeyAnswer> Key(
        this TestNode node, Scopes scopes, string tenant = Ledger.Requests.DefaultTenant, string name = "somebody", DateTimeOffset? expiresAt = null)
    {
        var key = await node.UnseenKey(scopes, tenant, name, expiresAt);
        await node.CatchUp();
        return key;
    }

    /// <summary>One that no view need show yet.</summary>
    public static async Task<KeyAnswer> UnseenKey(
        this TestNode node, Scopes scopes, string tenant = Ledger.Requests.DefaultTenant, string name = "somebody", DateTimeOffset? expiresAt = null)
    {
        var (result, key) = await new CreateKey(name, ScopeNames.Of(scopes), tenant, expiresAt).Run(
            new CommandContext(Ledger.Requests.DefaultTenant, "command line", null), node.Services.GetRequiredService<CommandHandler>(),
            node.Services.GetRequiredService<EventReader>(), node.Services.GetRequiredService<LedgerClock>(), TestContext.Current.CancellationToken);
        Assert.Null(result.Rejection);
        return key!;
    }

    /// <summary>The header that shows it.</summary>
    public static (string Name, string Value) Bearer(this KeyAnswer key) => Bearer(key.Secret!);

    /// <summary>The header that shows a token.</summary>
    public static (string Name, string Value) Bearer(string token) => ("Authorization", $"Bearer {token}");
}
