using System.Text.Json;
using System.Text.Json.Serialization;

namespace Ledger.Http;

/// <summary>What is known of a patch without its type.</summary>
public interface IPatch
{
    /// <summary>Whether the field was in the body, be it as null.</summary>
    bool IsSet { get; }
}

/// <summary>
/// A field of a JSON merge-patch body (RFC 7396), where absent (leave it) differs from null (clear it). For a value that
/// may be cleared take <c>Patch&lt;decimal?&gt;</c>; null for a <c>Patch&lt;decimal&gt;</c> is refused. Text may always be null.
/// </summary>
public readonly record struct Patch<T> : IPatch
{
    /// <summary>A field that is there.</summary>
    public Patch(T? value) => (IsSet, Value) = (true, value);

    /// <inheritdoc/>
    public bool IsSet { get; }

    /// <summary>The value, or default when the field is absent.</summary>
    public T? Value { get; }

    /// <summary>The value if the field is there, else <paramref name="current"/>.</summary>
    public T? Or(T? current) => IsSet ? Value : current;
}

/// <summary>Reads and writes <see cref="Patch{T}"/>; <see cref="Json"/> leaves unset ones out.</summary>
internal sealed class PatchConverterFactory : JsonConverterFactory
{
    public override bool CanConvert(Type typeToConvert) =>
        typeToConvert.IsGenericType && typeToConvert.GetGenericTypeDefinition() == typeof(Patch<>);

    public override JsonConverter CreateConverter(Type typeToConvert, JsonSerializerOptions options) =>
        (JsonConverter)Activator.CreateInstance(typeof(PatchConverter<>).MakeGenericType(typeToConvert.GetGenericArguments()))!;

    private sealed class PatchConverter<T> : JsonConverter<Patch<T>>
    {
        public override bool HandleNull => true;

        public override Patch<T> Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options)
        {
            if (reader.TokenType == JsonTokenType.Null)
                return default(T) is null ? new(default) : throw new InvalidValueException("may not be null");
            // The converter itself, not the serializer, which would begin a path of its own in what it says is wrong.
            return new(((JsonConverter<T>)options.GetConverter(typeof(T))).Read(ref reader, typeof(T), options));
        }

        public override void Write(Utf8JsonWriter writer, Patch<T> value, JsonSerializerOptions options) =>
            JsonSerializer.Serialize(writer, value.Value, options);
    }
}
