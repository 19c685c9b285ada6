using System.Net;
using System.Text.Json;

namespace Ledger.Tests.Events;

/// <summary>What was received of server-sent events.</summary>
internal sealed record Received(long? Id, string? Data, string? Comment, string? Retry);

/// <summary>A client of server-sent events, line by line as the standard has it.</summary>
internal sealed class Following : IAsyncDisposable
{
    private readonly HttpResponseMessage _response;
    private readonly StreamReader _reader;

    private Following(HttpResponseMessage response, StreamReader reader) => (_response, _reader) = (response, reader);

    public HttpResponseMessage Response => _response;

    /// <summary>What such a client would send as Last-Event-ID.</summary>
    public long LastId { get; private set; }

    public static async Task<Following> Start(TestNode node, string query = "", long? lastEventId = null, string accept = "text/event-stream")
    {
        using var request = new HttpRequestMessage(HttpMethod.Get, $"/v1/events{query}");
        request.Headers.TryAddWithoutValidation("Accept", accept);
        if (lastEventId is not null)
        {
            request.Headers.TryAddWithoutValidation("Last-Event-ID", $"{lastEventId}");
        }

        var response = await node.Client.SendAsync(request, HttpCompletionOption.ResponseHeadersRead, TestContext.Current.CancellationToken);
        Assert.Equal(HttpStatusCode.OK, response.StatusCode);
        return new Following(response, new StreamReader(await response.Content.ReadAsStreamAsync(TestContext.Current.CancellationToken)));
    }

    public async Task<string?> Line()
    {
        using var patience = CancellationTokenSource.CreateLinkedTokenSource(TestContext.Current.CancellationToken);
        patience.CancelAfter(TimeSpan.FromSeconds(20));
        return await _reader.ReadLineAsync(patience.Token);
    }

    /// <summary>The next block; null at the end.</summary>
    public async Task<Received?> Next()
    {
        var received = new Received(null, null, null, null);
        while (await Line() is { } line)
        {
            if (line.Length == 0)
            {
                LastId = received.Id ?? LastId;
                return received;
            }

            var colon = line.IndexOf(':', StringComparison.Ordinal);
            var value = line[(colon + 1)..].TrimStart(' ');
            received = line[..colon] switch
            {
                "id" => received with { Id = long.Parse(value, System.Globalization.CultureInfo.InvariantCulture) },
                "data" => received with { Data = received.Data + value },
                "retry" => received with { Retry = value },
                "" => received with { Comment = value },
                _ => throw new InvalidOperationException($"Not expected: {line}"),
            };
        }

        return null;
    }

    /// <summary>The next events, passing over what is none; fewer when the stream ends.</summary>
    public async Task<List<JsonElement>> Events(int count)
    {
        var events = new List<JsonElement>();
        while (events.Count < count && await Next() is { } received)
        {
            if (received.Data is not null)
            {
                var data = JsonElement.Parse(received.Data);
                Assert.Equal(received.Id, data.GetProperty("position").GetInt64());
                events.Add(data);
            }
        }

        return events;
    }

    public ValueTask DisposeAsync()
    {
        _reader.Dispose();
        _response.Dispose();
        return ValueTask.CompletedTask;
    }
}
