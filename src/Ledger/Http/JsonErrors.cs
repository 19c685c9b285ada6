using System.Globalization;
using System.Text.Json;
using System.Text.Json.Serialization.Metadata;
using System.Text.RegularExpressions;

namespace Ledger.Http;

/// <summary>Says what is wrong with a JSON body in the caller's terms: JSON paths and kinds, no types of ours.</summary>
public static partial class JsonErrors
{
    /// <summary>The name of the body itself among the errors.</summary>
    public const string Root = "$";

    /// <summary>
    /// Explains why a body could not be read as <paramref name="type"/>. The path in the exception is followed through the
    /// type, which tells an unknown field from a wrong value and what would have been right.
    /// </summary>
    public static Rejection Explain(JsonException exception, Type? type, JsonSerializerOptions options)
    {
        if (IsMalformed(exception)) return Malformed(exception);
        var path = exception.Path ?? Root;
        if (exception is InvalidValueException invalid)
        {
            // The serializer's path names the list, or counts past the item.
            if (invalid.Item is { } item) path = $"{(path.EndsWith(']') ? path[..path.LastIndexOf('[')] : path)}[{item}]";
            return Refuse(Name(path), exception.Message);
        }
        var (found, parent) = Follow(path, type, options);
        if (MissingNames(exception.Message) is { Length: > 0 } missing)
        {
            var errors = new Validation();
            foreach (var name in missing) errors.Add(path == Root ? name : $"{Name(path)}.{name}", "is missing");
            return errors.Rejection!;
        }
        if (exception.Message.StartsWith("Duplicate propert", StringComparison.Ordinal)) return Refuse(Name(path), "is given twice");
        if (found is null && parent is { Kind: JsonTypeInfoKind.Object })
        {
            var known = string.Join(", ", parent.Properties.Select(p => p.Name).Order(StringComparer.Ordinal));
            return Refuse(Name(path), $"is not a known field; known are: {known}", "unknown-field");
        }
        return Refuse(Name(path), found is null ? "has a value that is not valid" : Expectation(found));
    }

    /// <summary>What a value of a type must look like, as the end of a sentence about the field.</summary>
    public static string Expectation(Type type)
    {
        type = Nullable.GetUnderlyingType(type) ?? type;
        if (type.IsGenericType && type.GetGenericTypeDefinition() == typeof(Patch<>)) return Expectation(type.GetGenericArguments()[0]);
        if (type == typeof(string)) return "must be text";
        if (type == typeof(bool)) return "must be true or false";
        if (type == typeof(int)) return $"must be a whole number from {int.MinValue} to {int.MaxValue}";
        if (type == typeof(long)) return $"must be a whole number from {long.MinValue} to {long.MaxValue}";
        if (type == typeof(decimal)) return Decimals.Rule;
        if (type == typeof(DateTimeOffset) || type == typeof(QueryTime)) return Rfc3339.Rule;
        if (type == typeof(TimeSpan)) return "is not an ISO 8601 duration such as P14D";
        if (type == typeof(DateOnly)) return "must be a date, such as 2026-11-20";
        if (type == typeof(Guid)) return "must be a UUID";
        if (type.IsEnum) return $"must be one of: {string.Join(", ", StrictEnumConverterFactory.NamesOf(type).Select(n => n.Name))}";
        return "has a value that is not valid";
    }

    private static bool IsMalformed(JsonException exception) => IsOfReader(exception) || IsOfReader(exception.InnerException);

    // The reader's own exception is internal: the one kind that is neither of ours nor the serializer's.
    private static bool IsOfReader(Exception? exception) =>
        exception is JsonException and not InvalidValueException && exception.GetType() != typeof(JsonException);

    private static Rejection Malformed(JsonException exception)
    {
        var where = exception is { LineNumber: { } line, BytePositionInLine: { } at }
            ? string.Create(CultureInfo.InvariantCulture, $" at line {line + 1}, byte {at + 1}")
            : "";
        return new("malformed-json", exception.Message.Contains("maximum configured depth", StringComparison.Ordinal)
            ? $"The body is nested deeper than {Limits.MaxJsonDepth} levels{where}."
            : $"The body is not well-formed JSON{where}.");
    }

    private static Rejection Refuse(string field, string message, string code = "invalid-request") =>
        field == Root
            ? new(code, $"The body {message}.") { Errors = new Dictionary<string, string[]> { [Root] = [message] } }
            : Validation.Field(field, message, code);

    private static string Name(string path) => path == Root ? Root : path.StartsWith("$.", StringComparison.Ordinal) ? path[2..] : path[1..];

    private static string Expectation(JsonTypeInfo type) => type.Kind switch
    {
        JsonTypeInfoKind.Object or JsonTypeInfoKind.Dictionary => "must be an object",
        JsonTypeInfoKind.Enumerable => "must be a list",
        _ => Expectation(type.Type),
    };

    private static (JsonTypeInfo? Found, JsonTypeInfo? Parent) Follow(string path, Type? type, JsonSerializerOptions options)
    {
        var current = type is null ? null : options.GetTypeInfo(type);
        JsonTypeInfo? parent = null;
        for (var rest = path.AsSpan(1); !rest.IsEmpty;)
        {
            if (current is null) return (null, null);
            parent = current;
            var name = TakeStep(ref rest);
            var isObject = parent.Kind == JsonTypeInfoKind.Object;
            var next = isObject ? parent.Properties.FirstOrDefault(p => p.Name == name)?.PropertyType : parent.ElementType;
            if (next is null && isObject) return (null, parent); // whatever looks like further steps is of the unknown name
            if (next is { IsGenericType: true } && next.GetGenericTypeDefinition() == typeof(Patch<>)) next = next.GetGenericArguments()[0];
            current = next is null ? null : options.GetTypeInfo(next);
        }
        return (current, parent);
    }

    // The name or index that a path begins with. A name the caller made up stands in it as it is, so it is looked at once only, from its beginning to its end.
    private static string TakeStep(ref ReadOnlySpan<char> rest)
    {
        string name;
        int length;
        if (rest.StartsWith("['", StringComparison.Ordinal))
        {
            length = 2;
            int close;
            do
            {
                close = rest[length..].IndexOf("']", StringComparison.Ordinal);
                length = close < 0 ? rest.Length : length + close + 2;
            }
            while (length < rest.Length && rest[length] is not ('.' or '['));
            name = rest[2..(close < 0 ? length : length - 2)].ToString();
        }
        else
        {
            length = rest[1..].IndexOfAny('.', '[') is >= 0 and var end ? 1 + end : rest.Length;
            name = rest[1..length].ToString();
        }
        rest = rest[length..];
        return name;
    }

    // The serializer names what is missing only in its message.
    private static string[] MissingNames(string message) =>
        message.IndexOf("missing required properties including", StringComparison.Ordinal) is >= 0 and var at
            ? [.. Quoted().Matches(message[at..]).Select(m => m.Groups[1].Value)]
            : [];

    [GeneratedRegex("'([^']+)'")]
    private static partial Regex Quoted();
}
