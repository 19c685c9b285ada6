using System.Text.Json.Serialization;
using Ledger.EventStore;
using Ledger.Http;

namespace Ledger.Services;

// These names and shapes are stored, in the stream service-{serviceId}.

/// <summary>An AI service came to be, as yet without a price.</summary>
public sealed record ServiceRegistered(string ServiceId, string Title, string? Description);

/// <summary>A service got another title.</summary>
public sealed record ServiceRenamed(string Title);

/// <summary>A service got another description.</summary>
public sealed record ServiceDescribed(string? Description);

/// <summary>A price was added to the price list: it is in force from an instant on that may lie in the past or in the future.</summary>
public sealed record PriceSet(int Version, string Currency, DateTimeOffset EffectiveFrom, IReadOnlyList<PriceComponent> Components);

/// <summary>What <paramref name="Per"/> of a unit cost: a quantity q costs exactly q × price / per.</summary>
public sealed record PriceComponent(string Unit, decimal Price, [property: JsonConverter(typeof(WholeNumberConverter))] long Per = 1);

/// <summary>A service takes no calls and no prices any more. What was before stays; its id and title stay taken.</summary>
public sealed record ServiceRetired;

/// <summary>An AI service as its stream tells it.</summary>
public sealed record Service(
    string Id, string Title, string? Description, PriceList Prices, DateTimeOffset RegisteredAt, DateTimeOffset? RetiredAt, long Version)
{
    /// <summary>Characters of a description.</summary>
    public const int MaxDescriptionLength = 1_000;

    /// <summary>The kind of stream, as in <c>mt_streams.type</c>.</summary>
    public const string StreamType = "service";

    private const string StreamPrefix = "service-";

    /// <summary>Whether it was ever registered.</summary>
    public bool Exists => Version > 0;

    /// <summary>Whether it was retired.</summary>
    public bool IsRetired => RetiredAt is not null;

    /// <summary>A service that was never registered.</summary>
    public static Service Initial(string id) => new(id, "", null, PriceList.Empty, default, null, 0);

    /// <summary>The stream of a service.</summary>
    public static string StreamOf(string serviceId) => StreamPrefix + serviceId;

    /// <summary>The service a stream belongs to.</summary>
    public static string IdOf(string streamId) => streamId[StreamPrefix.Length..];

    /// <summary>Folds one event of the stream.</summary>
    public static Service Evolve(Service service, RecordedEvent recorded)
    {
        service = service with { Version = recorded.Version };
        return recorded.Data switch
        {
            ServiceRegistered registered => service with
            {
                Id = registered.ServiceId, Title = registered.Title, Description = registered.Description, RegisteredAt = recorded.RecordedAt,
            },
            ServiceRenamed renamed => service with { Title = renamed.Title },
            ServiceDescribed described => service with { Description = described.Description },
            PriceSet set => service with { Prices = service.Prices.With(new PriceVersion(set, recorded.RecordedAt, recorded.Position)) },
            ServiceRetired => service with { RetiredAt = recorded.RecordedAt },
            _ => throw new InvalidOperationException($"{recorded.Type} does not belong into the stream of a service."),
        };
    }
}
