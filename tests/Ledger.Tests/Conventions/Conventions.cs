using System.Runtime.CompilerServices;
using System.Text.Json;
using System.Text.RegularExpressions;
using Ledger.EventStore;
using Ledger.Hosting;
using Ledger.Http;
using Microsoft.AspNetCore.Http.Metadata;
using Microsoft.AspNetCore.Routing;
using Microsoft.Extensions.DependencyInjection;

namespace Ledger.Tests.Conventions;

public sealed partial class Every_event_kind
{
    public static TheoryData<string> Names => [.. LedgerEvents.Types.All.Select(t => t.Name).Order(StringComparer.Ordinal)];

    [Theory, MemberData(nameof(Names))]
    public void Is_described(string name) =>
        Assert.Contains($"### {name}", File.ReadLines(Repository.PathOf("docs/events.md")).Select(l => l.TrimEnd().Replace("`", "", StringComparison.Ordinal)));

    [Theory, MemberData(nameof(Names))]
    public void Is_stored_under_the_name_Marten_would_give_it(string name) =>
        Assert.Equal(EventTypes.MartenAlias(LedgerEvents.Types.Named(name)!.ClrType), name);

    [Theory, MemberData(nameof(Names))]
    public void Reads_back_what_it_wrote(string name)
    {
        var type = LedgerEvents.Types.Named(name)!;
        var json = JsonSerializer.SerializeToUtf8Bytes(EventSamples.Of(type.ClrType), type.Json);
        var later = JsonSerializer.SerializeToUtf8Bytes(new Dictionary<string, object>(
            JsonElement.Parse(json).EnumerateObject().Select(p => KeyValuePair.Create(p.Name, (object)p.Value))) { ["fromALaterVersion"] = 1 });

        Assert.Equal(json, JsonSerializer.SerializeToUtf8Bytes(JsonSerializer.Deserialize(json, type.Json), type.Json));
        Assert.Equal(json, JsonSerializer.SerializeToUtf8Bytes(JsonSerializer.Deserialize(later, type.Json), type.Json));
    }

    [Fact]
    public void Is_a_sealed_record_named_by_what_happened() =>
        Assert.All(LedgerEvents.Types.All, t => Assert.True(t.ClrType.IsSealed && !t.ClrType.Name.EndsWith("Event", StringComparison.Ordinal)));

    [Fact]
    public void Is_stored_as_it_was_stored_before() => Snapshot.Matches(
        "events.txt",
        string.Concat(LedgerEvents.Types.All.OrderBy(t => t.Name, StringComparer.Ordinal).Select(t =>
            $"{t.Name}\n  {t.DotnetName}\n  {JsonSerializer.Serialize(EventSamples.Of(t.ClrType), t.Json)}\n")));
}

public sealed partial class The_sources
{
    private static readonly string[] Features = [.. Directory.GetDirectories(Repository.PathOf("src/Ledger")).Select(d => Path.GetFileName(d)!)
        .Where(f => f is not ("Http" or "Grpc" or "Authentication" or "Hosting" or "bin" or "obj" or "Properties"))];

    /// <summary>Features that show what the event store keeps.</summary>
    private static readonly string[] WithoutTables = ["Events", "Log"];

    private static IEnumerable<(string Path, string Text)> In(string folder) =>
        Directory.EnumerateFiles(Repository.PathOf(folder), "*.*", SearchOption.AllDirectories)
            .Where(f => Path.GetExtension(f) is ".cs" or ".sql" or ".csproj" && !f.Split(Path.DirectorySeparatorChar).Any(p => p is "bin" or "obj"))
            .Select(f => (Path.GetRelativePath(Repository.Root, f), File.ReadAllText(f)));

    private static string[] TablesOf(string feature) =>
        [.. In($"src/Ledger/{feature}").Where(f => f.Path.EndsWith(".sql", StringComparison.Ordinal)).SelectMany(f => CreatedTable().Matches(f.Text)).Select(m => m.Groups[1].Value)];

    private static void AssertNoneMatches(IEnumerable<(string Path, string Text)> files, Regex pattern) =>
        Assert.Empty(files.SelectMany(f => pattern.Matches(f.Text).Select(m => $"{f.Path}: {m.Value}")));

    [Fact]
    public void Of_a_feature_name_no_table_of_another()
    {
        Assert.All(Features.Except(WithoutTables), f => Assert.NotEmpty(TablesOf(f)));
        foreach (var feature in Features)
        {
            var others = Features.Where(f => f != feature).SelectMany(TablesOf).ToArray();
            AssertNoneMatches(In($"src/Ledger/{feature}"), new Regex($@"\b(from|join|into|update|table|lateral)\s+({string.Join('|', others)})\b"));
        }
    }

    [Fact]
    public void Of_a_feature_use_no_projection_or_reader_of_another()
    {
        foreach (var feature in Features)
        {
            var others = Features.Where(f => f != feature)
                .SelectMany(f => In($"src/Ledger/{f}")).SelectMany(f => DeclaredType().Matches(f.Text)).Select(m => m.Groups[1].Value)
                .Where(t => t.EndsWith("Projection", StringComparison.Ordinal) || t.EndsWith("Reader", StringComparison.Ordinal) || t.EndsWith("Loader", StringComparison.Ordinal))
                .Where(t => t != "ServiceLoader").ToArray(); // it folds streams, and is there for other features
            AssertNoneMatches(In($"src/Ledger/{feature}"), new Regex($@"\b({string.Join('|', others)})\b"));
        }
    }

    [Fact]
    public void Of_Http_know_no_feature() =>
        AssertNoneMatches(In("src/Ledger/Http"), new Regex($@"Ledger\.({string.Join('|', Features)})\b"));

    [Fact]
    public void Of_the_transport_of_gRPC_know_no_feature()
    {
        var transport = In("src/Ledger/Grpc").Where(f => Path.GetFileName(f.Path) is "GrpcTransport.cs" or "GrpcMessages.cs" or "GrpcStatus.cs").ToArray();
        Assert.Equal(3, transport.Length);
        AssertNoneMatches(transport, new Regex($@"Ledger\.({string.Join('|', Features)}|Grpc\.V1)\b"));
    }

    [Fact]
    public void Of_Hosting_know_of_features_only_how_to_add_and_map_them_and_their_events()
    {
        var types = Features.SelectMany(f => In($"src/Ledger/{f}")).SelectMany(f => DeclaredType().Matches(f.Text)).Select(m => m.Groups[1].Value)
            .Where(t => !t.EndsWith("Feature", StringComparison.Ordinal) && t != "SweepInterval").Distinct();

        AssertNoneMatches(In("src/Ledger/Hosting").Select(f => (f.Path, WithoutComments(f.Text))), new Regex($@"(?<![\w.""])({string.Join('|', types)})(?=[.(<> ])"));
    }

    [Fact]
    public void Of_Authentication_know_no_feature() =>
        AssertNoneMatches(In("src/Ledger/Authentication"), new Regex($@"Ledger\.({string.Join('|', Features)})\b"));

    [Fact]
    public void Of_the_event_store_know_no_web_and_no_feature()
    {
        AssertNoneMatches(In("src/Ledger.EventStore"), new Regex($@"AspNetCore|Ledger\.(Http|Hosting|{string.Join('|', Features)})\b|Microsoft\.NET\.Sdk\.Web"));
        Assert.DoesNotContain(typeof(Appender).Assembly.GetReferencedAssemblies(), a => a.Name!.Contains("AspNetCore", StringComparison.Ordinal) || a.Name == "Ledger");
    }

    [Fact]
    public void Leave_nothing_undone_and_no_test_out() =>
        AssertNoneMatches(
            [.. In("src"), .. In("tests")],
            new Regex(string.Join('|', (string[])[@"\bTO" + @"DO\b", @"\bFIX" + @"ME\b", @"\bHA" + @"CK\b", @"Sk" + @"ip\s*=", @"Assert\.Sk" + "ip", @"#pragma war" + "ning disable", @"DateTime(Offset)?\." + @"Now\b"])));

    [Fact]
    public void Connect_to_the_database_and_to_nobody_whom_a_request_names() =>
        AssertNoneMatches(
            In("src").Where(f => f.Path.EndsWith(".cs", StringComparison.Ordinal)).Select(f => (f.Path, WithoutComments(f.Text)))
                // These ask whom the settings name.
                .Where(f => !f.Path.Contains("/Authentication/", StringComparison.Ordinal) && !f.Path.EndsWith("/Campaigns/Gateway.cs", StringComparison.Ordinal)
                    && !f.Path.Contains("/Campaigns/Summary/", StringComparison.Ordinal)),
            new Regex(@"\b(HttpClient|HttpMessageInvoker|WebRequest|TcpClient|UdpClient|new Socket|ClientWebSocket|SmtpClient|Dns)\b"));

    [Fact]
    public void Take_the_time_from_one_clock_only() =>
        AssertNoneMatches(
            In("src").Where(f => f.Path.EndsWith(".cs", StringComparison.Ordinal)).Select(f => (f.Path, WithoutComments(f.Text)))
                .Where(f => !f.Path.Contains("PrivateCluster", StringComparison.Ordinal)),
            new Regex(@"DateTime(Offset)?\.UtcNow|\bRandom\b"));

    private static string WithoutComments(string text) => Comment().Replace(text, "");

    [GeneratedRegex(@"create table (?:if not exists )?(\w+)")]
    private static partial Regex CreatedTable();

    [GeneratedRegex(@"^(?:public|internal)[\w ]* (?:class|record|record struct|struct|interface) (\w+)", RegexOptions.Multiline)]
    private static partial Regex DeclaredType();

    [GeneratedRegex(@"//.*$", RegexOptions.Multiline)]
    private static partial Regex Comment();
}

public sealed class Every_endpoint(TestNode node) : IClassFixture<TestNode>
{
    private RouteEndpoint[] Endpoints =>
    [
        .. node.Services.GetRequiredService<EndpointDataSource>().Endpoints.OfType<RouteEndpoint>()
            .Where(e => e.Metadata.GetMetadata<IExcludeFromDescriptionMetadata>() is not { ExcludeFromDescription: true }),
    ];

    [Fact]
    public void Has_a_name_a_summary_and_a_tag() => Assert.All(Endpoints, e =>
    {
        Assert.NotNull(e.Metadata.GetMetadata<IEndpointNameMetadata>());
        Assert.NotEmpty(e.Metadata.GetMetadata<IEndpointSummaryMetadata>()?.Summary ?? "");
        Assert.NotEmpty(e.Metadata.GetMetadata<ITagsMetadata>()?.Tags ?? []);
    });

    [Fact]
    public void Declares_what_it_answers_and_how_it_refuses() => Assert.All(Endpoints, e =>
    {
        var answers = e.Metadata.GetOrderedMetadata<IProducesResponseTypeMetadata>();
        Assert.Contains(answers, a => a.StatusCode is >= 200 and < 300);
        if (e.RoutePattern.RawText!.StartsWith("/v1/", StringComparison.Ordinal))
        {
            Assert.Contains(answers, a => a is { StatusCode: 400 } && a.Type == typeof(Problem) && a.ContentTypes.Contains(Problems.ContentType));
            Assert.Contains(answers, a => a is { StatusCode: 503 } && a.Type == typeof(Problem));
        }
    });

    [Fact]
    public async Task Is_described_as_it_was_described_before()
    {
        var document = (await node.GetAsIs("/openapi/v1.json")).Is(System.Net.HttpStatusCode.OK);
        Assert.StartsWith("3.1", document.Json.GetProperty("openapi").GetString(), StringComparison.Ordinal);
        Snapshot.Matches("openapi.json", JsonSerializer.Serialize(document.Json, s_indented) + "\n");
    }

    [Fact]
    public async Task Can_be_browsed() => (await node.GetAsIs("/docs/index.html")).Is(System.Net.HttpStatusCode.OK);

    private static readonly JsonSerializerOptions s_indented = new() { WriteIndented = true, Encoder = System.Text.Encodings.Web.JavaScriptEncoder.UnsafeRelaxedJsonEscaping };
}

/// <summary>Where the sources lie.</summary>
internal static class Repository
{
    public static string Root { get; } = Find();

    public static string PathOf(string path) => Path.Combine(Root, path);

    private static string Find([CallerFilePath] string file = "")
    {
        var folder = Path.GetDirectoryName(file);
        while (folder is not null && !File.Exists(Path.Combine(folder, "Ledger.sln")))
        {
            folder = Path.GetDirectoryName(folder);
        }

        return folder ?? throw new InvalidOperationException("The sources are not there.");
    }
}

/// <summary>What others rely on, kept in a file. LEDGER_TEST_SNAPSHOTS=write writes it anew, to be read in the diff.</summary>
internal static class Snapshot
{
    public static void Matches(string name, string actual)
    {
        var path = Repository.PathOf($"tests/Ledger.Tests/Conventions/Snapshots/{name}");
        if (Environment.GetEnvironmentVariable("LEDGER_TEST_SNAPSHOTS") == "write")
        {
            Directory.CreateDirectory(Path.GetDirectoryName(path)!);
            File.WriteAllText(path, actual);
        }

        Assert.Equal(File.ReadAllText(path), actual);
    }
}
