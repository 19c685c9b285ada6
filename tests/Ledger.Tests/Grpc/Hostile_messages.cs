using System.Collections;
using System.Collections.Concurrent;
using System.Globalization;
using System.Net;
using Google.Protobuf;
using Google.Protobuf.Reflection;
using Google.Protobuf.WellKnownTypes;
using Ledger.Grpc;
using Ledger.Testing;
using Ledger.Tests.Hostile;
using Proto = Ledger.Grpc.V1;

namespace Ledger.Tests.Grpc;

/// <summary>
/// Every method with every value of a table in the place of every field of its message: none fails for a reason that is ours, no
/// refusal stores anything.
/// </summary>
public sealed class Hostile_messages(PostgresFixture postgres) : IAsyncLifetime
{
    private static readonly Timestamp Noon = new() { Seconds = TestClock.Start.ToUnixTimeSeconds() };

    private readonly TestNode _node = new(postgres) { GrpcUrls = "http://127.0.0.1:0" };
    private HttpClient _client = null!;

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    public async ValueTask InitializeAsync()
    {
        await _node.InitializeAsync();
        _client = new HttpClient { BaseAddress = _node.GrpcAddress };
        (await _node.Post("/v1/services", new { serviceId = "svc", title = "svc" })).Is(HttpStatusCode.Created);
        (await _node.Post("/v1/services/svc/prices", new { currency = "USD", effectiveFrom = "2026-01-01T00:00:00Z", components = new[] { new { unit = "call", price = "0.01" } } })).Is(HttpStatusCode.Created);
        (await _node.Post("/v1/usage", new { id = "c", source = "s", userId = "u", serviceId = "svc" })).Is(HttpStatusCode.OK);
    }

    public async ValueTask DisposeAsync()
    {
        _client.Dispose();
        Assert.Empty(_node.Errors);
        await _node.DisposeAsync();
    }

    public static TheoryData<string> Methods { get; } =
        [.. Proto.UsageReflection.Descriptor.FindTypeByName<ServiceDescriptor>("UsageService").Methods.Select(m => m.Name)];

    [Theory]
    [MemberData(nameof(Methods))]
    public async Task break_no_method(string method)
    {
        var good = Sample(method);
        Assert.Equal(GrpcCode.Ok, (await Call(method, good)).Code);
        var before = await _node.CatchUp();
        var waiting = new ConcurrentQueue<IMessage>(Wrong(good));
        var answers = new ConcurrentBag<(IMessage Message, GrpcCode Code, string Text, string TraceId)>();
        Assert.True(waiting.Count > 100);

        await Task.WhenAll(Enumerable.Range(0, 8).Select(_ => Task.Run(async () =>
        {
            while (waiting.TryDequeue(out var message))
            {
                var (code, text, trace) = await Call(method, message);
                answers.Add((message, code, text, trace));
            }
        }, Cancellation)));

        var stored = (await _node.Log(before)).Select(e => e.CorrelationId).ToHashSet();
        var wrong = answers.Where(a =>
                a.Code is not (GrpcCode.Ok or GrpcCode.InvalidArgument or GrpcCode.NotFound or GrpcCode.AlreadyExists or GrpcCode.FailedPrecondition or GrpcCode.Aborted or GrpcCode.ResourceExhausted)
                || (a.Code != GrpcCode.Ok && stored.Contains(a.TraceId)) || a.Text.Contains("Exception", StringComparison.Ordinal) || a.Text.Contains("System.", StringComparison.Ordinal))
            .Select(a => $"{a.Code} {a.Text} for {Start(a.Message.ToString()!)}").ToArray();
        Assert.True(wrong.Length == 0, $"{wrong.Length} of {answers.Count}:\n{string.Join('\n', wrong.Take(10))}");
    }

    private static IMessage Sample(string method)
    {
        var call = new Proto.Call { UserId = "u", ServiceId = "svc", Id = "sample", Source = "s", OccurredAt = Noon, Quantities = { ["call"] = "1" }, Tags = { ["team"] = "search" } };
        return method switch
        {
            "RecordCall" => new Proto.RecordCallRequest { Call = call },
            "RecordCalls" => new Proto.RecordCallsRequest { Calls = { call } },
            "VoidCall" => new Proto.VoidCallRequest { Source = "s", Id = "c", Reason = "r" },
            "QueryTotals" => new Proto.QueryTotalsRequest
            {
                GroupBy = { "user" }, From = new() { Seconds = Noon.Seconds - 86_400 }, To = Noon, User = "u", Service = "svc", Currency = "USD", TimeZone = "UTC", Sort = "calls", Order = "asc", Limit = 5,
                At = Noon, Position = 1,
            },
            "RegisterService" => new Proto.RegisterServiceRequest { ServiceId = "other", Title = "other", Description = "d" },
            "SetPrice" => new Proto.SetPriceRequest { ServiceId = "svc", Currency = "USD", Components = { new Proto.PriceComponent { Unit = "call", Price = "0.01", Per = 1 } }, EffectiveFrom = Noon },
            _ => throw new ArgumentOutOfRangeException(nameof(method), method, "has no sample"),
        };
    }

    /// <summary>The message with a hostile value in the place of each of its fields, one at a time.</summary>
    private static IEnumerable<IMessage> Wrong(IMessage good)
    {
        foreach (var field in good.Descriptor.Fields.InDeclarationOrder())
        {
            if (field.IsMap)
            {
                foreach (var text in HostileValues.Texts)
                {
                    yield return With(good, m => Entries(m)[text] = "1");
                    yield return With(good, m => Entries(m)["call"] = text);
                }

                yield return With(good, m =>
                {
                    for (var i = 0; i < 2_000; i++)
                    {
                        Entries(m)[$"k{i}"] = "1";
                    }
                });
                IDictionary Entries(IMessage m) => (IDictionary)field.Accessor.GetValue(m);
            }
            else if (field.IsRepeated)
            {
                foreach (var item in Items(field, ((IList)field.Accessor.GetValue(good))[0]!))
                {
                    yield return With(good, m => ((IList)field.Accessor.GetValue(m))[0] = item);
                }

                yield return With(good, m => ((IList)field.Accessor.GetValue(m)).Clear());
            }
            else
            {
                foreach (var value in Items(field, field.Accessor.GetValue(good)))
                {
                    yield return With(good, m => field.Accessor.SetValue(m, value));
                }

                yield return With(good, field.Accessor.Clear);
            }
        }
    }

    private static IEnumerable<object> Items(FieldDescriptor field, object good) => good switch
    {
        string => HostileValues.Texts,
        int => [int.MinValue, -1, 0, int.MaxValue],
        long => [long.MinValue, -1L, 0L, 3L, long.MaxValue],
        Timestamp => new (long Seconds, int Nanos)[]
        {
            (long.MinValue, 0), (long.MaxValue, int.MaxValue), (-62_135_596_801, 0), (-62_135_596_800, 0), (253_402_300_799, 999_999_999), (253_402_300_800, 0), (0, -1), (0, 1_000_000_000), (-1, 999_999_999),
        }.Select(t => new Timestamp { Seconds = t.Seconds, Nanos = t.Nanos }),
        IMessage message => Wrong(message),
        _ => throw new NotSupportedException($"{field.FullName} has no table."),
    };

    private static IMessage With(IMessage good, Action<IMessage> change)
    {
        var copy = good.Descriptor.Parser.ParseFrom(good.ToByteArray());
        change(copy);
        return copy;
    }

    private async Task<(GrpcCode Code, string Text, string TraceId)> Call(string method, IMessage message)
    {
        var trace = Guid.NewGuid().ToString("n");
        var bytes = message.ToByteArray();
        using var request = new HttpRequestMessage(HttpMethod.Post, $"/ledger.v1.UsageService/{method}")
        {
            Version = HttpVersion.Version20, VersionPolicy = HttpVersionPolicy.RequestVersionExact, Headers = { { "traceparent", $"00-{trace}-{trace[..16]}-00" } },
            Content = new ByteArrayContent([0, 0, (byte)(bytes.Length >> 16), (byte)(bytes.Length >> 8), (byte)bytes.Length, .. bytes]) { Headers = { ContentType = new("application/grpc") } },
        };
        using var response = await _client.SendAsync(request, Cancellation);
        Assert.Equal(HttpStatusCode.OK, response.StatusCode);
        await response.Content.ReadAsByteArrayAsync(Cancellation);
        return (
            (GrpcCode)int.Parse(response.TrailingHeaders.GetValues("grpc-status").Single(), CultureInfo.InvariantCulture),
            response.TrailingHeaders.TryGetValues("grpc-message", out var text) ? Uri.UnescapeDataString(text.Single()) : "", trace);
    }

    private static string Start(string text) => text.Length <= 300 ? text : $"{text[..300]}…";
}
