using System.Globalization;
using System.IO.Compression;
using System.Net;
using System.Net.Http.Headers;
using System.Text;
using System.Text.Json;
using Ledger.Usage;

namespace Ledger.Tests.Usage;

/// <summary>What tests of calls have in common.</summary>
internal static class UsageOf
{
    private static int s_number;

    public static string NewId(string prefix) => $"{prefix}-{Interlocked.Increment(ref s_number)}";

    /// <summary>A service, with a price of 0.15 USD per million input tokens and 0.60 USD per million output tokens since 2020 unless told otherwise.</summary>
    public static async Task<string> Service(TestNode node, bool priced = true)
    {
        var serviceId = NewId("service");
        (await node.Post("/v1/services", new { serviceId, title = serviceId })).Is(HttpStatusCode.Created);
        if (priced)
        {
            await SetPrice(node, serviceId);
        }

        return serviceId;
    }

    public static async Task SetPrice(TestNode node, string serviceId, string input = "0.15", string effectiveFrom = "2020-01-01T00:00:00Z", string currency = "USD") =>
        (await node.Post($"/v1/services/{serviceId}/prices", new
        {
            effectiveFrom, currency,
            components = new object[] { new { unit = "inputToken", price = input, per = 1_000_000 }, new { unit = "outputToken", price = "0.6", per = 1_000_000 } },
        })).Is(HttpStatusCode.Created);

    public static Task<Answer> Record(this TestNode node, object? body, string mediaType = "application/json", string? encoding = null, params (string, string)[] headers) =>
        Record(node, Encoding.UTF8.GetBytes(body as string ?? JsonSerializer.Serialize(body, JsonSerializerOptions.Web)), mediaType, encoding, headers);

    public static async Task<Answer> Record(this TestNode node, byte[] body, string? mediaType, string? encoding = null, params (string Name, string Value)[] headers)
    {
        using var request = new HttpRequestMessage(HttpMethod.Post, "/v1/usage") { Content = new ByteArrayContent(encoding is null ? body : Packed(body, encoding)) };
        if (mediaType is not null)
        {
            request.Content.Headers.TryAddWithoutValidation("Content-Type", mediaType);
        }

        if (encoding is not null)
        {
            request.Content.Headers.ContentEncoding.Add(encoding);
        }

        foreach (var (name, value) in headers)
        {
            _ = request.Headers.TryAddWithoutValidation(name, value) || request.Content.Headers.TryAddWithoutValidation(name, value);
        }

        return await node.Send(request);
    }

    public static async Task<CallRecorded[]> Recorded(this TestNode node, string serviceId) =>
        [.. (await node.Log()).Select(e => e.Data).OfType<CallRecorded>().Where(c => c.ServiceId == serviceId)];

    public static byte[] Packed(byte[] body, string encoding)
    {
        using var packed = new MemoryStream();
        using (Stream stream = encoding switch
        {
            "gzip" => new GZipStream(packed, CompressionLevel.Fastest, leaveOpen: true),
            "br" => new BrotliStream(packed, CompressionLevel.Fastest, leaveOpen: true),
            _ => new ZLibStream(packed, CompressionLevel.Fastest, leaveOpen: true),
        })
        {
            stream.Write(body);
        }

        return packed.ToArray();
    }

    public static (long Accepted, long Duplicates, long Received, long Rejected, (long Line, string Code, string Fields)[] Rejections) Receipt(this Answer answer)
    {
        var json = answer.Is(HttpStatusCode.OK).Json;
        var receipt = (Number("accepted"), Number("duplicates"), Number("received"), Number("rejected"),
            json.GetProperty("rejections").EnumerateArray().Select(r => (
                r.GetProperty("line").GetInt64(), r.GetProperty("code").GetString()!,
                r.TryGetProperty("errors", out var errors) ? string.Join(",", errors.EnumerateObject().Select(e => e.Name)) : "")).ToArray());
        Assert.Equal(receipt.Item3, receipt.Item1 + receipt.Item2 + receipt.Item4);
        return receipt;

        long Number(string name) => json.GetProperty(name).GetInt64();
    }

    /// <summary>The totals of a service over all time: calls, the amount in USD, unpriced calls.</summary>
    public static async Task<(long Calls, string? Usd, long Unpriced)> Totals(this TestNode node, string serviceId)
    {
        var total = (await node.Get($"/v1/usage/totals?service={serviceId}")).Is(HttpStatusCode.OK).Json.GetProperty("total");
        return (
            total.GetProperty("calls").GetInt64(), total.GetProperty("amounts").TryGetProperty("USD", out var usd) ? usd.GetString() : null,
            total.GetProperty("unpricedCalls").GetInt64());
    }
}
