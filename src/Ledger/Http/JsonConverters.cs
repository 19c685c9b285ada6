using System.Buffers;
using System.Collections.Frozen;
using System.Reflection;
using System.Text;
using System.Text.Json;
using System.Text.Json.Serialization;

namespace Ledger.Http;

/// <summary>A value of the right JSON kind that breaks a rule; the message ends a sentence about the field.</summary>
internal sealed class InvalidValueException(string message) : JsonException(message)
{
    /// <summary>Which item of the list it is, where the path cannot tell.</summary>
    public int? Item { get; init; }
}

/// <summary>Text that PostgreSQL can hold: no U+0000 and no lone surrogate, in values and in keys.</summary>
internal sealed class StorableStringConverter : JsonConverter<string>
{
    public const string Rule = "holds what is not text: U+0000, half of a surrogate pair, or bytes that are not UTF-8";

    public override string Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options)
    {
        if (reader.TokenType != JsonTokenType.String) throw new InvalidValueException("must be text");
        return GetStorable(ref reader);
    }

    public override string ReadAsPropertyName(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options) => GetStorable(ref reader);

    public override void Write(Utf8JsonWriter writer, string value, JsonSerializerOptions options) => writer.WriteStringValue(value);

    public override void WriteAsPropertyName(Utf8JsonWriter writer, string value, JsonSerializerOptions options) => writer.WritePropertyName(value);

    /// <summary>The text at the reader's position, or the refusal.</summary>
    public static string GetStorable(ref Utf8JsonReader reader)
    {
        string text;
        try
        {
            text = reader.GetString()!;
        }
        catch (InvalidOperationException)
        {
            throw new InvalidValueException(Rule);
        }
        // Only an escape can bring in U+0000.
        if (reader.ValueIsEscaped && text.Contains('\0')) throw new InvalidValueException(Rule);
        return text;
    }
}

/// <summary>Free JSON, with the same rule for all text in it.</summary>
internal sealed class StorableElementConverter : JsonConverter<JsonElement>
{
    public override bool HandleNull => true;

    public override JsonElement Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options)
    {
        var probe = reader;
        for (var depth = probe.CurrentDepth; ;)
        {
            if (probe.TokenType is JsonTokenType.String or JsonTokenType.PropertyName)
                StorableStringConverter.GetStorable(ref probe);
            if (probe.CurrentDepth == depth && probe.TokenType is not (JsonTokenType.StartObject or JsonTokenType.StartArray)) break;
            if (!probe.Read()) break;
        }
        using var document = JsonDocument.ParseValue(ref reader);
        var element = document.RootElement.Clone();
        RefuseDuplicates(element);
        return element;
    }

    public override void Write(Utf8JsonWriter writer, JsonElement value, JsonSerializerOptions options) => value.WriteTo(writer);

    private static void RefuseDuplicates(JsonElement element)
    {
        if (element.ValueKind == JsonValueKind.Array)
        {
            foreach (var item in element.EnumerateArray()) RefuseDuplicates(item);
        }
        else if (element.ValueKind == JsonValueKind.Object)
        {
            HashSet<string> names = new(StringComparer.Ordinal);
            foreach (var property in element.EnumerateObject())
            {
                if (!names.Add(property.Name)) throw new InvalidValueException($"has '{Validation.Shown(property.Name)}' twice");
                RefuseDuplicates(property.Value);
            }
        }
    }
}

/// <summary>Decimals: written as plain strings, read from strings and numbers, and never rounded.</summary>
internal sealed class DecimalConverter : JsonConverter<decimal>
{
    public override decimal Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options)
    {
        if (reader.TokenType is not (JsonTokenType.String or JsonTokenType.Number))
            throw new InvalidValueException("must be a decimal, such as \"12.5\"");
        Span<byte> copy = stackalloc byte[Decimals.MaxChars];
        var length = reader.HasValueSequence ? reader.ValueSequence.Length : reader.ValueSpan.Length;
        if (length > copy.Length || reader.ValueIsEscaped) throw new InvalidValueException(Decimals.Rule);
        var text = reader.HasValueSequence ? copy[..(int)length] : reader.ValueSpan;
        if (reader.HasValueSequence) reader.ValueSequence.CopyTo(copy);
        return Decimals.TryParse(text, out var value) ? value : throw new InvalidValueException(Decimals.Rule);
    }

    public override void Write(Utf8JsonWriter writer, decimal value, JsonSerializerOptions options)
    {
        Span<byte> text = stackalloc byte[Decimals.MaxChars];
        writer.WriteStringValue(text[..Decimals.Format(value, text)]);
    }
}

/// <summary>Whole numbers that stand beside decimals: written as numbers, read from numbers and, as decimals are, from strings.</summary>
internal sealed class WholeNumberConverter : JsonConverter<long>
{
    private static readonly DecimalConverter Decimal = new();

    public override long Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options)
    {
        if (reader.TokenType is not (JsonTokenType.String or JsonTokenType.Number)) throw new InvalidValueException("must be a whole number");
        var value = Decimal.Read(ref reader, typeof(decimal), options);
        return value is >= long.MinValue and <= long.MaxValue && decimal.IsInteger(value) ? (long)value : throw new InvalidValueException("must be a whole number");
    }

    public override void Write(Utf8JsonWriter writer, long value, JsonSerializerOptions options) => writer.WriteNumberValue(value);
}

/// <summary>Times: RFC 3339.</summary>
internal sealed class Rfc3339Converter : JsonConverter<DateTimeOffset>
{
    public override DateTimeOffset Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options)
    {
        if (reader.TokenType == JsonTokenType.String && Rfc3339.TryParse(StorableStringConverter.GetStorable(ref reader), out var value)) return value;
        throw new InvalidValueException(Rfc3339.Rule);
    }

    public override void Write(Utf8JsonWriter writer, DateTimeOffset value, JsonSerializerOptions options)
    {
        Span<byte> text = stackalloc byte[Rfc3339.MaxChars];
        writer.WriteStringValue(text[..Rfc3339.Format(value, text)]);
    }
}

/// <summary>Durations: ISO 8601 of a fixed length.</summary>
internal sealed class DurationConverter : JsonConverter<TimeSpan>
{
    public override TimeSpan Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options)
    {
        if (reader.TokenType != JsonTokenType.String) throw new InvalidValueException("is not an ISO 8601 duration such as P14D");
        return Iso8601Duration.TryParse(StorableStringConverter.GetStorable(ref reader), out var value, out var error)
            ? value
            : throw new InvalidValueException(error);
    }

    public override void Write(Utf8JsonWriter writer, TimeSpan value, JsonSerializerOptions options) =>
        writer.WriteStringValue(Iso8601Duration.Format(value));
}

/// <summary>Enums by their exact name. The built-in converter takes other cases, and lists that make undefined values.</summary>
internal sealed class StrictEnumConverterFactory : JsonConverterFactory
{
    public override bool CanConvert(Type typeToConvert) => typeToConvert.IsEnum;

    public override JsonConverter CreateConverter(Type typeToConvert, JsonSerializerOptions options) =>
        (JsonConverter)Activator.CreateInstance(typeof(StrictEnumConverter<>).MakeGenericType(typeToConvert))!;

    /// <summary>The names of an enum's values as they are written: camelCase, or what <c>JsonStringEnumMemberName</c> says.</summary>
    public static IEnumerable<(string Name, object Value)> NamesOf(Type type) =>
        from field in type.GetFields(BindingFlags.Public | BindingFlags.Static)
        let name = field.GetCustomAttribute<JsonStringEnumMemberNameAttribute>()?.Name ?? JsonNamingPolicy.CamelCase.ConvertName(field.Name)
        select (name, field.GetValue(null)!);

    private sealed class StrictEnumConverter<T> : JsonConverter<T> where T : struct, Enum
    {
        private static readonly FrozenDictionary<string, T> Values = NamesOf(typeof(T)).ToFrozenDictionary(n => n.Name, n => (T)n.Value);
        private static readonly FrozenDictionary<T, JsonEncodedText> Names = Values.ToFrozenDictionary(v => v.Value, v => JsonEncodedText.Encode(v.Key));
        private static readonly string Rule = $"must be one of: {string.Join(", ", NamesOf(typeof(T)).Select(n => n.Name))}";

        public override T Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options) =>
            reader.TokenType == JsonTokenType.String && Values.TryGetValue(StorableStringConverter.GetStorable(ref reader), out var value)
                ? value
                : throw new InvalidValueException(Rule);

        public override void Write(Utf8JsonWriter writer, T value, JsonSerializerOptions options) => writer.WriteStringValue(Names[value]);
    }
}
