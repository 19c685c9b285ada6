using System.Diagnostics.Metrics;
using System.Globalization;
using System.Reflection;
using System.Runtime.CompilerServices;
using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.RegularExpressions;
using Ledger.EventStore;
using Ledger.Hosting;
using Ledger.Http;
using Microsoft.AspNetCore.Routing;
using Microsoft.Extensions.DependencyInjection;

namespace Ledger.Tests.Documents;

public sealed partial class Contents
{
    public static TheoryData<string> Documents { get; } = new(Repository.Documents);

    [Fact]
    public void The_table_of_problems_is_the_one_of_the_code()
    {
        var listed = Repository.Rows(Repository.Read("docs/http.md"), "code", "status", "title", "what to do");

        Assert.Equal(
            Problems.All.Select(p => $"`{p.Code}` {p.Status} {p.Title}"),
            listed.Select(row => $"{row[0]} {row[1]} {row[2]}"));
    }

    [Fact]
    public void Every_event_is_described_with_an_example_that_the_program_reads()
    {
        var sections = EventHeading().Split(Repository.Read("docs/events.md")).Skip(1).Chunk(2).ToDictionary(s => s[0], s => s[1]);

        Assert.Equal(LedgerEvents.Types.All.Select(t => t.Name).Order(), sections.Keys.Order());
        foreach (var (name, text) in sections)
        {
            var type = LedgerEvents.Types.Named(name)!;
            var example = Assert.Single(Repository.Blocks(text, "json"));
            var read = JsonSerializer.Deserialize(example, type.Json);
            var written = JsonSerializer.SerializeToNode(read, type.Json);
            Assert.True(JsonNode.DeepEquals(JsonNode.Parse(example), written), $"{name}: the program reads the example as {written}.");
            var fields = Repository.Rows(text, "field", "type", "meaning").Select(row => row[0].Trim('`'));
            Assert.Equal(type.Json.Properties.Select(p => p.Name).Order(), fields.Order());
        }
    }

    [Fact]
    public void Every_limit_of_the_code_is_listed_with_its_value()
    {
        var listed = Repository.Documents.SelectMany(d => Repository.Rows(Repository.Read(d), "limit", "value", "constant"))
            .ToDictionary(row => row[2].Trim('`'), row => row[1]);
        var real =
            from type in typeof(EventStoreOptions).Assembly.GetExportedTypes().Concat(typeof(LedgerHost).Assembly.GetExportedTypes())
            from field in type.GetFields(BindingFlags.Public | BindingFlags.Static | BindingFlags.DeclaredOnly)
            where (field.IsLiteral && (field.FieldType == typeof(int) || field.FieldType == typeof(long)) && !type.IsEnum)
                || field.FieldType == typeof(decimal) || field.FieldType == typeof(TimeSpan) || field.FieldType == typeof(DateTimeOffset)
            select (Name: $"{type.Name}.{field.Name}", Value: field.GetValue(null)!);

        Assert.All(real, limit =>
        {
            Assert.True(listed.TryGetValue(limit.Name, out var value), $"{limit.Name} stands in no table of limits.");
            Assert.Equal(Shown(limit.Value), value.Split(" (")[0]);
        });
        Assert.Empty(listed.Keys.Except(real.Select(l => l.Name)));
    }

    [Fact]
    public void Every_setting_is_listed()
    {
        var read = Repository.Rows(Repository.Read("README.md"), "variable", "meaning", "unless set").Select(row => row[0].Trim('`'));
        var asked = new HashSet<string> { PostgresBinaries.EnvironmentVariable };
        LedgerSettings.FromEnvironment(name =>
        {
            asked.Add(name);
            return null;
        });

        Assert.Equal(asked.Order(), read.Order());
    }

    [Fact]
    public void Every_endpoint_is_on_the_map_of_the_repository()
    {
        using var node = LedgerHost.Build(new LedgerSettings(), "Host=nowhere");
        var real =
            from endpoint in ((IEndpointRouteBuilder)node).DataSources.SelectMany(s => s.Endpoints).OfType<RouteEndpoint>()
            let path = $"/{endpoint.RoutePattern.RawText!.TrimStart('/')}"
            where !path.StartsWith("/openapi", StringComparison.Ordinal)
            from method in endpoint.Metadata.GetRequiredMetadata<IHttpMethodMetadata>().HttpMethods
            select $"{method} {path}";
        var mapped = Repository.Rows(Repository.Read("README.md"), "request", "file").SelectMany(row => row[0].Split(", ")).Select(r => r.Trim('`'));

        Assert.Equal(real.Order(), mapped.Order());
    }

    [Fact]
    public void Every_metric_is_listed_with_its_unit()
    {
        var real = new HashSet<string>();
        using var listener = new MeterListener
        {
            InstrumentPublished = (instrument, _) =>
            {
                if (instrument.Meter is { Name: Telemetry.Name or "Ledger", Scope: null })
                {
                    lock (real)
                    {
                        real.Add($"`{instrument.Name}` `{instrument.Unit}`");
                    }
                }
            },
        };
        listener.Start();
        using var node = LedgerHost.Build(new LedgerSettings(), "Host=nowhere");
        Assert.NotEmpty(node.Services.GetServices<Microsoft.Extensions.Hosting.IHostedService>()); // the daemon among them
        RuntimeHelpers.RunClassConstructor(typeof(Telemetry).TypeHandle);
        RuntimeHelpers.RunClassConstructor(typeof(MetricCollector).TypeHandle);
        RuntimeHelpers.RunClassConstructor(typeof(Ledger.Events.EventMetrics).TypeHandle);
        RuntimeHelpers.RunClassConstructor(typeof(Ledger.Authentication.CredentialMetrics).TypeHandle);
        node.Services.GetRequiredService<Sealer>();
        RuntimeHelpers.RunClassConstructor(typeof(Ledger.Campaigns.GatewayMetrics).TypeHandle);
        node.Services.GetRequiredService<Ledger.Campaigns.Gateway>();
        RuntimeHelpers.RunClassConstructor(typeof(Ledger.Campaigns.SummarySender).TypeHandle);
        RuntimeHelpers.RunClassConstructor(typeof(Ledger.Segments.SegmentMetrics).TypeHandle);
        RuntimeHelpers.RunClassConstructor(typeof(Ledger.Usage.UsageMetrics).TypeHandle);
        RuntimeHelpers.RunClassConstructor(typeof(Ledger.Campaigns.CampaignMetrics).TypeHandle);
        var listed = Repository.Rows(Repository.Read("docs/operations.md"), "metric", "kind", "unit", "tags", "what").Select(row => $"{row[0]} {row[2]}");

        Assert.Equal(real.Order(), listed.Order());
    }

    [Theory]
    [MemberData(nameof(Documents))]
    public void Every_link_leads_somewhere(string document)
    {
        var text = Repository.Read(document);
        var folder = Path.GetDirectoryName(Path.Combine(Repository.Root, document))!;
        Assert.All(Link().Matches(text).Select(m => m.Groups), link =>
        {
            var target = link["file"].Value.Length == 0 ? Path.Combine(Repository.Root, document) : Path.Combine(folder, link["file"].Value);
            Assert.True(Path.Exists(target), $"{link["file"]} does not exist.");
            if (link["heading"].Value is { Length: > 0 } heading)
            {
                Assert.Contains(heading, Heading().Matches(File.ReadAllText(target)).Select(m => Anchor(m.Groups[1].Value)));
            }
        });
    }

    [Theory]
    [MemberData(nameof(Documents))]
    public void Every_file_named_exists(string document) => Assert.All(
        NamedFile().Matches(Repository.Read(document)).Select(m => m.Groups[1].Value),
        file => Assert.True(Path.Exists(Path.Combine(Repository.Root, file)), $"{file} does not exist."));

    [Theory]
    [MemberData(nameof(Documents))]
    public void No_document_speaks_of_how_it_was_made(string document) =>
        Assert.Empty(Forbidden().Matches(Repository.Read(document)).Select(m => m.Value));

    private static string Shown(object value) => value switch
    {
        TimeSpan { TotalDays: >= 1 } time => $"{Number((int)time.TotalDays)} days",
        TimeSpan time => $"{time.TotalSeconds} s",
        DateTimeOffset time => Rfc3339.Format(time),
        int or long or decimal => Number(Convert.ToDecimal(value, CultureInfo.InvariantCulture)),
        _ => value.ToString()!,
    };

    private static string Number(decimal number) => number.ToString("N0", CultureInfo.InvariantCulture).Replace(',', ' ');

    private static string Anchor(string heading) =>
        NotInAnchor().Replace(heading.ToLowerInvariant().Replace("`", "", StringComparison.Ordinal), "").Replace(' ', '-');

    [GeneratedRegex(@"^### `?(\w+)`?$", RegexOptions.Multiline)]
    private static partial Regex EventHeading();

    [GeneratedRegex(@"^#+ (.+)$", RegexOptions.Multiline)]
    private static partial Regex Heading();

    [GeneratedRegex(@"[^\w\- ]")]
    private static partial Regex NotInAnchor();

    [GeneratedRegex(@"\]\((?!https?:)(?<file>[^)#]*)(#(?<heading>[^)]*))?\)")]
    private static partial Regex Link();

    [GeneratedRegex(@"`((?:src|tests|docs)/[\w./-]*\w/?)`")]
    private static partial Regex NamedFile();

    [GeneratedRegex(@"(?i)/(work|home|root|tmp)/|\bissues?\b|\bTODO\b|\bthis session\b|\bhelpers?\b|\bthis machine\b|\bassistant\b")]
    private static partial Regex Forbidden();
}
