using System.Text.Json;
using Ledger.EventStore;

namespace Ledger.Users;

// These names and shapes are stored. A user exists from the first event of the stream user-{id}, whichever kind it is, or from
// the first event of another stream that names it, such as a call.

/// <summary>A user was made known with attributes, before anything else was recorded of it.</summary>
public sealed record UserRegistered(IReadOnlyDictionary<string, JsonElement> Attributes);

/// <summary>A user's attributes were replaced by these.</summary>
public sealed record UserAttributesSet(IReadOnlyDictionary<string, JsonElement> Attributes);

/// <summary>A user as its own stream tells it. <paramref name="Version"/> is the version at which the attributes were last set.</summary>
public sealed record User(DateTimeOffset? RegisteredAt, IReadOnlyDictionary<string, JsonElement> Attributes, long Version)
{
    /// <summary>Someone never heard of.</summary>
    public static readonly User Unknown = new(null, new Dictionary<string, JsonElement>(), 0);

    /// <summary>Whether there is any event of the user.</summary>
    public bool Exists => RegisteredAt is not null;

    /// <summary>The stream of a user.</summary>
    public static string StreamOf(string userId) => StreamPrefix + userId;

    /// <summary>The user a stream belongs to.</summary>
    public static string IdOf(string streamId) => streamId[StreamPrefix.Length..];

    /// <summary>The kind of stream, as in <c>mt_streams.type</c>.</summary>
    public const string StreamType = "user";

    private const string StreamPrefix = "user-";

    /// <summary>Folds one event of the stream. Events of memberships make a user exist and change nothing else of it.</summary>
    public static User Evolve(User user, RecordedEvent recorded)
    {
        user = user.Exists ? user : user with { RegisteredAt = recorded.RecordedAt, Version = recorded.Version };
        return recorded.Data switch
        {
            UserRegistered registered => user with { Attributes = registered.Attributes, Version = recorded.Version },
            UserAttributesSet set => user with { Attributes = set.Attributes, Version = recorded.Version },
            _ => user,
        };
    }
}
