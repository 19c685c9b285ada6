using System.IO.Compression;
using System.Text;

namespace Ledger.Tests.Hostile;

/// <summary>What nobody should send.</summary>
internal static class HostileValues
{
    private const string Latin = "\u00ff\u00fe";

    /// <summary>Texts, wherever a text may stand.</summary>
    public static readonly string[] Texts =
    [
        "", " ", "  a", "a ", "\t", "\n", "\r\nX-Injected: 1", "\0", "a\0b", "\u0001", "\u001b[31m", "\u007f", "\u0085", "\u00a0", "\u202egnp.exe", "\ufeff", "\uffff", "\U0010ffff",
        "e\u0301", "\u0130", "😀", new('a', 129), new('a', 256), new('a', 257), new('ä', 128), new('a', 5_000), string.Concat(Enumerable.Repeat("😀", 129)),
        ".", "..", "../../../etc/passwd", "..\\..\\windows", "/etc/passwd", "%2e%2e%2f", "%00", "a%2Fb", "a/b", "file:///etc/passwd", "http://169.254.169.254/",
        "'; drop table mt_events; --", "' or '1'='1", "\"; --", "a\\", "$1", "$$", "\\copy", "%s%n%x", "{0}", "${jndi:ldap://x/y}", "{{7*7}}", "<script>alert(1)</script>", "=1+1", "@SUM(A1)", "|cmd",
        "-0", "0", "-1", "+1", "1e400", "1e-400", "1E5", "0x10", "1_000", "1,5", "NaN", "Infinity", "-Infinity", "٣", "1.", ".5", "00", "2147483648", "9223372036854775807", "9223372036854775808",
        "-9223372036854775809", "79228162514264337593543950336", "0.0000000000000000000000000001", new('9', 60), new('9', 2_000),
        "0001-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59.9999999Z", "9999-12-31T23:59:59-14:00", "9999-12-31T23:59:59.999999Z", "10000-01-01T00:00:00Z", "0000-00-00T00:00:00Z",
        "2026-02-30T00:00:00Z", "2026-06-30T23:59:60Z", "2026-11-20T12:00:00", "1969-12-31T23:59:59Z", "9999-12", "0001-01", "2026-13",
        "P0D", "-P1D", "P99999999999D", "PT0.0000001S", "P1Y", "P", "PT", "P36525D", "P36526D",
        "true", "null", "undefined", "__proto__", "constructor", "$type", "*", "*DEFAULT*", "user-", "null\u0000",
    ];

    /// <summary>What may stand in the place of a JSON value: text of JSON in which ÿ and þ are sent as the bytes they are in Latin-1.</summary>
    public static readonly string[] Json =
    [
        "null", "true", "0", "-0", "-0.0", "-1", "1.5", "1e400", "-1e400", "1e-400", "1E+308", "9223372036854775808", "99999999999999999999999999999999999999999", $"1{new('0', 3_000)}", "0.1e-30",
        "NaN", "Infinity", "01", "+1", ".5", "'a'", "[]", "{}", "[null]", "[[]]", "{\"a\":1}", "{\"$type\":\"System.String\"}", "{\"__proto__\":{}}", "",
        "\"\\u0000\"", "\"\\ud800\"", "\"\\udc00a\"", "\"\\ud83d\\ud83d\"", "\"\\u00zz\"", "\"\\x41\"", "\"a\nb\"", "\"unfinished", $"\"{Latin}\"", "\"\u00c0\u00af\"", "\"\u00ed\u00a0\u0080\"", "\"\u00f4\u0090\u0080\u0080\"",
        $"{new('[', 31)}{new(']', 31)}", $"{new('[', 40)}{new(']', 40)}", new('[', 20_000), string.Concat(Enumerable.Repeat("{\"a\":", 40)) + "1" + new string('}', 40),
        $"[{string.Join(',', Enumerable.Range(0, 2_000))}]", $"{{{string.Join(',', Enumerable.Range(0, 2_000).Select(i => $"\"k{i}\":1"))}}}", "/* */ 1", "1 // x",
    ];

    /// <summary>Bodies that are wrong as a whole.</summary>
    public static readonly (string Encoding, byte[] Bytes)[] Bodies =
    [
        .. ((string[])
        [
            "", " ", "{", "}", "[", "]", "null", "true", "0", "\"\"", "[]", "{}", "{}{}", "{} x", "{},", "[{}]", "[null]", "{\"a\"}", "{a:1}", "{\"a\":1,}", "/**/{}", "\0", "{\0}", "\r\n\r\n", "\u00ef\u00bb\u00bf{}",
            "\u00ff\u00fe{\0}\0", Latin, new('[', 100_000), new('{', 1_000), "<?xml version=\"1.0\"?><!DOCTYPE a [<!ENTITY b SYSTEM \"file:///etc/passwd\">]><a>&b;</a>", "a=1&b=2", "GET / HTTP/1.1\r\n\r\n",
            "--x\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n--x--\r\n", new('a', 70_000), $"\"{new('a', 70_000)}", string.Concat(Enumerable.Repeat("\n", 5_000)), string.Concat(Enumerable.Repeat(",", 5_000)),
        ]).Select(text => ("", Encoding.Latin1.GetBytes(text))),
        ("gzip", "{}"u8.ToArray()), ("gzip", []), ("gzip", Packed(new byte[10_000])[..20]), ("gzip", Packed(new byte[3_000_000])), ("gzip", [.. Packed("{}"u8.ToArray()), 1, 2, 3]),
        ("br", "garbage"u8.ToArray()), ("deflate", "garbage"u8.ToArray()), ("zstd", "{}"u8.ToArray()), ("identity", "{}"u8.ToArray()), ("gzip, gzip", Packed(Packed("{}"u8.ToArray()))), ("", Packed("{}"u8.ToArray())),
    ];

    /// <summary>Content types that fit no body.</summary>
    public static readonly string?[] ContentTypes =
    [
        null, "", "text/plain", "application/xml", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded", "application/json; charset=utf-16", "application/json; charset=\"", "application/json;;;", "///", "*/*",
        "json", "application/", "application/jsonx", "application/problem+json", "text/csv; header=absent", "application/grpc", $"application/json; x={new('a', 5_000)}", "application/json\u00ff", "application/json, text/csv",
    ];

    /// <summary>Headers that are none, or too much.</summary>
    public static readonly (string Name, string Value)[] Headers =
    [
        ("Accept", ""), ("Accept", ";;;"), ("Accept", "a"), ("Accept", "*/*;q=2"), ("Accept", "application/json;q=NaN"), ("Accept", "text/html"), ("Accept", new('a', 5_000)), ("Accept", string.Join(',', Enumerable.Repeat("*/*;q=0.1", 500))),
        ("Ledger-Min-Position", ""), ("Ledger-Min-Position", "-1"), ("Ledger-Min-Position", "1e3"), ("Ledger-Min-Position", "9223372036854775807"), ("Ledger-Min-Position", "9223372036854775808"), ("Ledger-Min-Position", "\u00ff"),
        ("Prefer", "wait=-1"), ("Prefer", "wait=1e9, wait"), ("Prefer", new('=', 1_000)),
        ("Idempotency-Key", ""), ("Idempotency-Key", new('k', 256)), ("Idempotency-Key", "\u00ff"), ("Idempotency-Key", "a b"), ("Idempotency-Key", "\"\\\""),
        ("If-Match", ""), ("If-Match", "1"), ("If-Match", "\"99999999999999999999\""), ("If-Match", "W/\"1\""), ("If-Match", "\"0\""), ("If-Match", string.Join(',', Enumerable.Repeat("\"1\"", 2_000))), ("If-None-Match", "\u00ff"),
        ("Last-Event-ID", "-1"), ("Last-Event-ID", "x"), ("Range", "bytes=0-99999999999999999999"), ("Expect", "the unexpected"), ("Accept-Encoding", "gzip;q=-1"), ("Accept-Language", new('x', 5_000)),
        ("tracestate", new('=', 3_000)), ("baggage", "a=%00;b"), ("X-HTTP-Method-Override", "DELETE"), ("X-Forwarded-For", "' or 1=1"), ("X-Forwarded-Host", "evil.example"), ("X-Original-URL", "/v1/users"),
        ("Cookie", new('c', 5_000)), ("Authorization", "Bearer \u00ff"), ("Authorization", "Basic !!!"), ("Content-Encoding", "\u00ff"), ("Host", "evil.example"), ("Host", ""), ("Connection", "close, \u00ff"), ("Upgrade", "websocket"),
        ("ce-id", "\u00ff"), ("ce-specversion", "9.9"), ("ce-time", "0000"), ("Date", "yesterday"), ("Content-Length", "-1"), ("Content-Length", "99999999999999999999"), ("Transfer-Encoding", "chunked, chunked"), ("X", ""), ("a b", "c"), ("\u00ff", "c"),
    ];

    public static readonly string[] Methods = ["TRACE", "OPTIONS", "PATCH", "PUT", "DELETE", "POST", "GET", "PROPFIND", "get", "\u00ff", "A,B"];

    public static byte[] Packed(byte[] body)
    {
        var packed = new MemoryStream();
        using (var gzip = new GZipStream(packed, CompressionLevel.Fastest))
        {
            gzip.Write(body);
        }

        return packed.ToArray();
    }

    /// <summary>A text in a path as nobody should write it there.</summary>
    public static IEnumerable<string> AsItComes(string text)
    {
        var raw = string.Concat(text.Where(c => c is > ' ' and < (char)0x7f));
        if (raw.Length > 0 && raw != Uri.EscapeDataString(text) && !raw.AsSpan().ContainsAny("?#&"))
        {
            yield return raw;
        }
    }

    /// <summary>What can be written into a URL, but stands for no text.</summary>
    public static readonly string[] NoTexts = ["%", "%z", "%zz", "%0", "%00", "a%00", "%ff", "%c0%af", "%ed%a0%80", "%f4%90%80%80", "%e2%82", "%u0041", "%%"];
}
