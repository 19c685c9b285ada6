using System.Text.Json;
using System.Text.Json.Serialization.Metadata;

namespace Ledger.EventStore.Tests.Support;

/// <summary>An amount for an account; what the tests' views count.</summary>
public sealed record Deposited(string Account, int Amount);

/// <summary>Any text, to carry what PostgreSQL refuses and what is too large.</summary>
public sealed record Noted(string Text);

/// <summary>An event nobody folds.</summary>
public sealed record Ignored;

internal static class TestEvents
{
    public static readonly EventTypes Types = new(
        new JsonSerializerOptions(JsonSerializerDefaults.Web) { TypeInfoResolver = new DefaultJsonTypeInfoResolver() },
        (typeof(Deposited), "deposited"), (typeof(Noted), "noted"), (typeof(Ignored), "ignored"));
}
