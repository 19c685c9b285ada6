using System.Text;
using Ledger.EventStore;

namespace Ledger.Services;

// These names and shapes are stored, in the stream service_title-{title}.

/// <summary>A service took a title that no other has.</summary>
public sealed record ServiceTitleClaimed(string Title, string ServiceId);

/// <summary>The service that had the title took another one.</summary>
public sealed record ServiceTitleReleased(string ServiceId);

/// <summary>
/// Who has a title. It is claimed and released in the same transaction as the service gets and changes it, under the condition
/// that nobody else did meanwhile: so no two services have one title. Titles are compared code point by code point.
/// </summary>
public sealed record ServiceTitle(string? ServiceId, long Version)
{
    /// <summary>Characters (Unicode scalar values) of a title.</summary>
    public const int MaxCharacters = 200;

    /// <summary>What to say of a value that is none.</summary>
    public const string Rule = "must be 1 to 200 characters, none of them a control character, no space at either end";

    /// <summary>The kind of stream, as in <c>mt_streams.type</c>.</summary>
    public const string StreamType = "service_title";

    /// <summary>A title that nobody ever had.</summary>
    public static readonly ServiceTitle Free = new(null, 0);

    /// <summary>The stream of a title. No service has a stream of that name, whatever its id.</summary>
    public static string StreamOf(string title) => $"service_title-{title}";

    /// <summary>Whether another service than this one has the title.</summary>
    public bool IsTakenFrom(string serviceId) => ServiceId is not null && ServiceId != serviceId;

    /// <summary>Folds one event of the stream.</summary>
    public static ServiceTitle Evolve(ServiceTitle title, RecordedEvent recorded) => recorded.Data switch
    {
        ServiceTitleClaimed claimed => new(claimed.ServiceId, recorded.Version),
        ServiceTitleReleased => new(null, recorded.Version),
        _ => throw new InvalidOperationException($"{recorded.Type} does not belong into the stream of a title."),
    };

    /// <summary>What a decision on a service means for titles: the new one is claimed, the old one released.</summary>
    public static IReadOnlyList<StreamAppend> Follow(Service service, Decision decision)
    {
        var appends = new List<StreamAppend>();
        foreach (var data in decision.Events)
        {
            if (data is ServiceRegistered registered)
            {
                appends.Add(Claim(registered.Title, registered.ServiceId));
            }
            else if (data is ServiceRenamed renamed)
            {
                appends.Add(new StreamAppend(StreamOf(service.Title), StreamType, [new ServiceTitleReleased(service.Id)]));
                appends.Add(Claim(renamed.Title, service.Id));
            }
        }

        return appends;
    }

    /// <summary>Whether <paramref name="value"/> is a title.</summary>
    public static bool IsValid(string value)
    {
        if (value.Length is 0 or > 2 * MaxCharacters || char.IsWhiteSpace(value[0]) || char.IsWhiteSpace(value[^1]))
        {
            return false;
        }

        var count = 0;
        foreach (var rune in value.EnumerateRunes())
        {
            if (Rune.IsControl(rune) || ++count > MaxCharacters)
            {
                return false;
            }
        }

        return true;
    }

    private static StreamAppend Claim(string title, string serviceId) =>
        new(StreamOf(title), StreamType, [new ServiceTitleClaimed(title, serviceId)]);
}
