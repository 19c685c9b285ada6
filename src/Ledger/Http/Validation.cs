namespace Ledger.Http;

/// <summary>Collects what is wrong with a request, field by field, so that a caller learns everything at once.</summary>
public sealed class Validation
{
    /// <summary>At most so many fields are named; more are of no use to anybody.</summary>
    public const int MaxFields = 100;

    /// <summary>Characters of a name that a caller made up, when it is repeated to the caller.</summary>
    public const int MaxFieldChars = 200;

    private readonly Dictionary<string, List<string>> _errors = new(StringComparer.Ordinal);
    private Rejection? _only;

    /// <summary>Notes <paramref name="message"/>, the end of a sentence about <paramref name="field"/>, unless the condition holds; returns it.</summary>
    public bool Check(bool condition, string field, string message)
    {
        if (!condition) Add(field, message);
        return condition;
    }

    /// <summary>Notes that a field is wrong.</summary>
    public void Add(string field, string message)
    {
        _only = null;
        field = Shown(field);
        if (_errors.TryGetValue(field, out var messages)) messages.Add(message);
        else if (_errors.Count < MaxFields) _errors[field] = [message];
    }

    /// <summary>Notes what a part of the request was refused for, its fields under <paramref name="path"/>. Its code is kept when there is nothing else.</summary>
    public void Add(Rejection rejection, string path)
    {
        _only = _errors.Count == 0 && path.Length == 0 ? rejection : null;
        foreach (var (field, messages) in rejection.Errors ?? new Dictionary<string, string[]> { [JsonErrors.Root] = [rejection.Detail] })
        {
            foreach (var message in messages)
            {
                var name = Shown(field == JsonErrors.Root ? (path.Length == 0 ? field : path.TrimEnd('.')) : path + field);
                if (_errors.TryGetValue(name, out var noted)) noted.Add(message);
                else if (_errors.Count < MaxFields) _errors[name] = [message];
            }
        }
    }

    /// <summary>What was noted, as one <c>invalid-request</c>; null when nothing was.</summary>
    public Rejection? Rejection
    {
        get
        {
            if (_only is not null) return _only;
            if (_errors.Count == 0) return null;
            var (name, messages) = _errors.First();
            var detail = _errors.Count == 1 && messages.Count == 1
                ? Sentence(name, messages[0])
                : $"{Sentence(name, messages[0])} There is more: see errors.";
            return new("invalid-request", detail)
            {
                Errors = _errors.ToDictionary(e => e.Key, e => e.Value.ToArray(), StringComparer.Ordinal),
            };
        }
    }

    /// <summary>The rejection of one field.</summary>
    public static Rejection Field(string field, string message, string code = "invalid-request")
    {
        field = Shown(field);
        return new(code, Sentence(field, message)) { Errors = new Dictionary<string, string[]> { [field] = [message] } };
    }

    /// <summary>A name as it is repeated to the caller: a long one as far as <see cref="MaxFieldChars"/> only, and never half a surrogate pair.</summary>
    internal static string Shown(string name) =>
        name.Length <= MaxFieldChars ? name : $"{name[..(char.IsHighSurrogate(name[MaxFieldChars - 1]) ? MaxFieldChars - 1 : MaxFieldChars)]}…";

    private static string Sentence(string field, string message) => $"{field} {message}.";
}
