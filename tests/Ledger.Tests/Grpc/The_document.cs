using System.Text.RegularExpressions;
using Ledger.Grpc;
using Ledger.Http;
using Repository = Ledger.Tests.Documents.Repository;

namespace Ledger.Tests.Grpc;

/// <summary>What docs/grpc.md shows. With LEDGER_WRITE_DOCUMENTS=1 what was really answered is written into it.</summary>
public sealed partial class The_document_on_grpc(GrpcNode node) : IClassFixture<GrpcNode>
{
    private const string Document = "docs/grpc.md";

    [Fact]
    public async Task shows_a_session_as_it_is()
    {
        var text = Repository.Read(Document);
        var (program, shown) = (Assert.Single(Repository.Blocks(text, "js")), Assert.Single(Repository.Blocks(text, "text")));

        var real = await GrpcJs.Run("session.mjs", new Dictionary<string, string>
        {
            ["session.mjs"] = program.Replace("localhost:8081", node.Address.Authority, StringComparison.Ordinal).Replace("src/Ledger/Grpc", GrpcJs.Protos, StringComparison.Ordinal),
        }) + "\n";

        if (Environment.GetEnvironmentVariable("LEDGER_WRITE_DOCUMENTS") is null)
        {
            Assert.Equal(shown, real);
        }
        else if (shown != real)
        {
            await File.WriteAllTextAsync(Path.Combine(Repository.Root, Document), text.Replace(shown, real, StringComparison.Ordinal), TestContext.Current.CancellationToken);
        }
    }

    [Fact]
    public void has_the_status_of_every_problem() => Assert.Equal(
        Problems.All.Select(p => $"`{p.Code}` `{Hump().Replace(GrpcProblems.All[p.Code].ToString(), "_").ToUpperInvariant()}`"),
        Repository.Rows(Repository.Read(Document), "code", "gRPC status").Select(row => $"{row[0]} {row[1]}"));

    [Fact]
    public void has_every_method_of_the_service() => Assert.Equal(
        Ledger.Grpc.V1.UsageReflection.Descriptor.Services.Single().Methods.Select(m => $"`{m.Name}`"),
        Repository.Rows(Repository.Read(Document), "method", "over HTTP", "differs in").Select(row => row[0]));

    [GeneratedRegex("(?<=[a-z])(?=[A-Z])")]
    private static partial Regex Hump();
}
