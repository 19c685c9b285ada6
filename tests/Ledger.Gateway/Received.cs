using System.Text.Json;
using System.Text.Json.Serialization;

namespace Ledger.DemoGateway;

/// <summary>One call.</summary>
/// <param name="Id">The message's id.</param>
/// <param name="Phone">The recipient.</param>
/// <param name="Text">The message.</param>
/// <param name="At">When it came.</param>
/// <param name="Attempt">How often it has come by then.</param>
/// <param name="Answer">What was done.</param>
/// <param name="IsAccepted">Whether it was accepted by this call, so that a real gateway would have delivered it.</param>
public sealed record Call(string Id, string Phone, string Text, DateTimeOffset At, int Attempt, Treatment Answer, bool IsAccepted)
{
    public static JsonSerializerOptions Json { get; } = new(JsonSerializerDefaults.Web) { Converters = { new JsonStringEnumConverter(JsonNamingPolicy.CamelCase) } };
}

/// <summary>All calls in numbers.</summary>
/// <param name="Calls">Calls with the right token and a message.</param>
/// <param name="Messages">Different ids.</param>
/// <param name="Accepted">Ids that were accepted.</param>
/// <param name="AcceptedMoreThanOnce">Those that were accepted by more than one call.</param>
/// <param name="Unlike">Ids that came with different phones or texts.</param>
/// <param name="Refused">Calls without the token, or with a body that is no message.</param>
/// <param name="Answers">Calls by what was done.</param>
/// <param name="FirstAt">When the first one came.</param>
/// <param name="LastAt">When the last one came.</param>
public sealed record Summary(
    long Calls, long Messages, long Accepted, long AcceptedMoreThanOnce, long Unlike, long Refused, IReadOnlyDictionary<string, long> Answers, DateTimeOffset? FirstAt, DateTimeOffset? LastAt);

/// <summary>What the gateway has received, in memory and, if there is one, in a journal.</summary>
public sealed class Received : IAsyncDisposable
{
    private readonly Lock _lock = new();
    private readonly List<Call> _calls = [];
    private readonly Dictionary<string, Message> _messages = new(StringComparer.Ordinal);
    private readonly FileStream? _journal;
    private long _refused;

    private Received(FileStream? journal) => _journal = journal;

    /// <summary>Opens a journal and reads what it holds; a last line that was cut off is dropped. Null: without one.</summary>
    public static Received Open(string? path)
    {
        if (path is null)
        {
            return new Received(null);
        }

        // Not buffered: what was written survives this process, whatever ends it.
        var received = new Received(new FileStream(path, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.Read, bufferSize: 0));
        var whole = 0L;
        foreach (var line in Lines(received._journal!))
        {
            received.Keep(JsonSerializer.Deserialize<Call>(line, Call.Json)!);
            whole += line.Length + 1;
        }

        received._journal!.SetLength(whole);
        received._journal.Position = whole;
        return received;
    }

    /// <summary>Takes a call: decides what is done with it, and writes that down.</summary>
    public Call Take(string id, string phone, string text, DateTimeOffset at, Faults faults)
    {
        lock (_lock)
        {
            var message = _messages.GetValueOrDefault(id);
            var attempt = (message?.Attempts ?? 0) + 1;
            var (treatment, accepted) = faults.Of(id, attempt);
            var call = new Call(id, phone, text, at, attempt, treatment, accepted && !(faults.Deduplicate && message?.Acceptances > 0));
            _journal?.Write([.. JsonSerializer.SerializeToUtf8Bytes(call, Call.Json), (byte)'\n']);
            Keep(call);
            return call;
        }
    }

    /// <summary>Counts a call that was none.</summary>
    public void CountRefused() => Interlocked.Increment(ref _refused);

    /// <summary>The calls so far, in order.</summary>
    public IEnumerable<Call> Calls()
    {
        for (var i = 0; ; i++)
        {
            Call call;
            lock (_lock)
            {
                if (i >= _calls.Count)
                {
                    yield break;
                }

                call = _calls[i];
            }

            yield return call;
        }
    }

    /// <summary>The numbers so far.</summary>
    public Summary Summarise()
    {
        lock (_lock)
        {
            return new Summary(
                _calls.Count, _messages.Count, _messages.Values.Count(m => m.Acceptances > 0), _messages.Values.Count(m => m.Acceptances > 1),
                _messages.Values.Count(m => m.IsUnlike), Interlocked.Read(ref _refused),
                _calls.GroupBy(c => c.Answer).ToDictionary(g => JsonNamingPolicy.CamelCase.ConvertName($"{g.Key}"), g => (long)g.Count()),
                _calls.Count == 0 ? null : _calls[0].At, _calls.Count == 0 ? null : _calls[^1].At);
        }
    }

    /// <summary>Forgets everything.</summary>
    public void Clear()
    {
        lock (_lock)
        {
            _calls.Clear();
            _messages.Clear();
            _journal?.SetLength(0);
            Interlocked.Exchange(ref _refused, 0);
        }
    }

    public ValueTask DisposeAsync() => _journal?.DisposeAsync() ?? ValueTask.CompletedTask;

    private void Keep(Call call)
    {
        _calls.Add(call);
        if (!_messages.TryGetValue(call.Id, out var message))
        {
            message = _messages[call.Id] = new Message(call.Phone, call.Text);
        }

        message.Attempts++;
        message.Acceptances += call.IsAccepted ? 1 : 0;
        message.IsUnlike |= message.Phone != call.Phone || message.Text != call.Text;
    }

    private static IEnumerable<byte[]> Lines(FileStream journal)
    {
        using var reader = new BufferedStream(new NotClosed(journal), 1 << 16);
        var line = new List<byte>();
        for (int read; (read = reader.ReadByte()) >= 0;)
        {
            if (read != '\n')
            {
                line.Add((byte)read);
                continue;
            }

            yield return [.. line];
            line.Clear();
        }
    }

    private sealed class Message(string phone, string text)
    {
        public string Phone { get; } = phone;

        public string Text { get; } = text;

        public int Attempts { get; set; }

        public int Acceptances { get; set; }

        public bool IsUnlike { get; set; }
    }

    /// <summary>A file that its reader leaves open.</summary>
    private sealed class NotClosed(FileStream file) : Stream
    {
        public override bool CanRead => true;

        public override bool CanSeek => false;

        public override bool CanWrite => false;

        public override long Length => file.Length;

        public override long Position { get => file.Position; set => throw new NotSupportedException(); }

        public override void Flush()
        {
        }

        public override int Read(byte[] buffer, int offset, int count) => file.Read(buffer, offset, count);

        public override long Seek(long offset, SeekOrigin origin) => throw new NotSupportedException();

        public override void SetLength(long value) => throw new NotSupportedException();

        public override void Write(byte[] buffer, int offset, int count) => throw new NotSupportedException();
    }
}
