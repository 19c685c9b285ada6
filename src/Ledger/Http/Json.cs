using System.Collections;
using System.Diagnostics.CodeAnalysis;
using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Serialization;
using System.Text.Json.Serialization.Metadata;

namespace Ledger.Http;

/// <summary>
/// How JSON is read and written over HTTP: camelCase and case-sensitive, nothing unknown, nothing twice, nothing missing,
/// no text that PostgreSQL cannot store; decimals as strings, times as RFC 3339 in UTC, durations as ISO 8601.
/// </summary>
public static class Json
{
    /// <summary>The options, frozen.</summary>
    public static JsonSerializerOptions Options { get; } = Create();

    /// <summary>Makes minimal APIs read and write by these rules.</summary>
    public static IServiceCollection AddLedgerJson(this IServiceCollection services) =>
        services.ConfigureHttpJsonOptions(json => Configure(json.SerializerOptions));

    /// <summary>Sets the rules on <paramref name="options"/>, whatever they were before.</summary>
    public static void Configure(JsonSerializerOptions options)
    {
        options.PropertyNamingPolicy = JsonNamingPolicy.CamelCase;
        options.PropertyNameCaseInsensitive = false;
        options.UnmappedMemberHandling = JsonUnmappedMemberHandling.Disallow;
        options.AllowDuplicateProperties = false;
        options.MaxDepth = Limits.MaxJsonDepth;
        options.ReadCommentHandling = JsonCommentHandling.Disallow;
        options.AllowTrailingCommas = false;
        options.NumberHandling = JsonNumberHandling.Strict;
        options.RespectNullableAnnotations = true;
        options.RespectRequiredConstructorParameters = true;
        // Answers are read as JSON, never as HTML: ä stays ä.
        options.Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping;
        options.TypeInfoResolver = new DefaultJsonTypeInfoResolver { Modifiers = { RefuseNullItems, OmitUnsetPatches } };
        options.Converters.Clear();
        options.Converters.Add(new StorableStringConverter());
        options.Converters.Add(new StorableElementConverter());
        options.Converters.Add(new DecimalConverter());
        options.Converters.Add(new Rfc3339Converter());
        options.Converters.Add(new DurationConverter());
        options.Converters.Add(new StrictEnumConverterFactory());
        options.Converters.Add(new PatchConverterFactory());
    }

    /// <summary>
    /// Reads one value that is not a request's typed body, a line of a stream for example.
    /// False with the rejection that says what is wrong.
    /// </summary>
    public static bool TryRead<T>(ReadOnlySpan<byte> utf8, [NotNullWhen(true)] out T? value, [NotNullWhen(false)] out Rejection? rejection)
    {
        try
        {
            value = JsonSerializer.Deserialize<T>(utf8, Options);
            rejection = value is null ? new("invalid-request", "The value is null.") : null;
            return value is not null;
        }
        catch (JsonException e)
        {
            value = default;
            rejection = JsonErrors.Explain(e, typeof(T), Options);
            return false;
        }
    }

    /// <summary>How many items a JSON list has, counted no further than one past <paramref name="limit"/>; 0 for anything else.</summary>
    public static int CountItems(ReadOnlySpan<byte> utf8, int limit)
    {
        var reader = new Utf8JsonReader(utf8, new JsonReaderOptions { MaxDepth = Limits.MaxJsonDepth });
        var count = 0;
        try
        {
            if (!reader.Read() || reader.TokenType != JsonTokenType.StartArray)
            {
                return 0;
            }

            while (count <= limit && reader.Read() && reader.TokenType != JsonTokenType.EndArray)
            {
                count++;
                reader.Skip();
            }
        }
        catch (JsonException)
        {
            // Whoever reads it says what is wrong.
        }

        return count;
    }

    /// <summary>As <see cref="TryRead{T}"/>, for a part of a request: what is wrong is noted, with <paramref name="path"/> before its field.</summary>
    public static T? ReadOr<T>(ReadOnlySpan<byte> utf8, Validation errors, string path = "") where T : class
    {
        if (TryRead<T>(utf8, out var value, out var rejection))
        {
            return value;
        }

        errors.Add(rejection, path);
        return null;
    }

    private static JsonSerializerOptions Create()
    {
        var options = new JsonSerializerOptions();
        Configure(options);
        options.MakeReadOnly();
        return options;
    }

    // Nullable annotations are honoured for properties, not for the items of a list or dictionary.
    private static void RefuseNullItems(JsonTypeInfo type)
    {
        if (type.Kind is not (JsonTypeInfoKind.Enumerable or JsonTypeInfoKind.Dictionary)) return;
        if (type.ElementType is not { } element || (element.IsValueType && Nullable.GetUnderlyingType(element) is null)) return;
        if (element == typeof(object)) return;
        type.OnDeserialized = static collection =>
        {
            if (collection is IDictionary dictionary)
            {
                foreach (DictionaryEntry entry in dictionary)
                    if (entry.Value is null) throw new InvalidValueException($"may not hold null, as '{Validation.Shown($"{entry.Key}")}' is");
                return;
            }
            var index = 0;
            foreach (var item in (IEnumerable)collection)
            {
                if (item is null) throw new InvalidValueException("may not be null") { Item = index };
                index++;
            }
        };
    }

    private static void OmitUnsetPatches(JsonTypeInfo type)
    {
        foreach (var property in type.Properties)
        {
            if (!property.PropertyType.IsAssignableTo(typeof(IPatch))) continue;
            property.IsRequired = false;
            property.ShouldSerialize = static (_, value) => value is IPatch { IsSet: true };
        }
    }
}
