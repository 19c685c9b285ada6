using System.Collections.Frozen;
using System.Text.Json;
using System.Text.Json.Serialization.Metadata;
using System.Text.RegularExpressions;

namespace Ledger.EventStore;

/// <summary>One kind of event: its CLR type, its stored name, and Marten's <c>mt_dotnet_type</c>.</summary>
public sealed record EventType(Type ClrType, string Name, string DotnetName, JsonTypeInfo Json);

/// <summary>Every kind of event the program knows, by CLR type and by stored name. Explicit; nothing is scanned for.</summary>
public sealed partial class EventTypes
{
    private readonly FrozenDictionary<Type, EventType> _byType;
    private readonly FrozenDictionary<string, EventType> _byName;

    /// <summary>Registers the events under their stored names; a name that differs from Marten's default alias is refused.</summary>
    public EventTypes(JsonSerializerOptions json, params IEnumerable<(Type Type, string Name)> events)
    {
        var types = new List<EventType>();
        foreach (var (type, name) in events)
        {
            if (name != MartenAlias(type))
            {
                throw new ArgumentException($"{type.Name} is stored as '{name}', but Marten would look for '{MartenAlias(type)}'.");
            }

            types.Add(new EventType(type, name, $"{type.FullName}, {type.Assembly.GetName().Name}", json.GetTypeInfo(type)));
        }

        _byType = types.ToFrozenDictionary(t => t.ClrType);
        _byName = types.ToFrozenDictionary(t => t.Name);
    }

    /// <summary>All of them.</summary>
    public IEnumerable<EventType> All => _byType.Values;

    /// <summary>The kind of an event object; an unregistered one is a bug.</summary>
    public EventType Of(Type clrType) => _byType.TryGetValue(clrType, out var type)
        ? type
        : throw new InvalidOperationException($"{clrType.Name} is not a registered event.");

    /// <summary>The kind with a stored name, or null when this program does not know it.</summary>
    public EventType? Named(string name) => _byName.GetValueOrDefault(name);

    /// <summary>The fact that an event's JSON tells: null when its kind is not known, or why it can't be read.</summary>
    internal (object? Data, UnreadableEventException? Unreadable) Read(string name, ReadOnlySpan<byte> json, long position)
    {
        var type = Named(name);
        try
        {
            return (type is null ? null : JsonSerializer.Deserialize(json, type.Json), null);
        }
        catch (Exception exception) when (exception is JsonException or NotSupportedException or ArgumentException or FormatException)
        {
            return (null, new UnreadableEventException(position, type!.ClrType, exception));
        }
    }

    /// <summary>Marten's default alias of a type: its simple name in snake case.</summary>
    public static string MartenAlias(Type type) =>
        WordBoundary().Replace(type.Name, " ").ToLowerInvariant().Replace(' ', '_');

    [GeneratedRegex(@"(?<=[a-z])(?=[^a-z])|(?<=[^a-z])(?=[^a-z][a-z])")]
    private static partial Regex WordBoundary();
}
