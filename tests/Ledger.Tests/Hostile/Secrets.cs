using System.Collections.Concurrent;
using System.Net;
using Ledger.Testing;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;
using Npgsql;

namespace Ledger.Tests.Hostile;

/// <summary>What nobody may read in a log, in an answer or among the metrics.</summary>
public sealed class Secrets(PostgresFixture postgres)
{
    private const string Secret = "s3cr3t-0815";

    [Fact]
    public async Task are_neither_logged_nor_answered_nor_measured_nor_stored()
    {
        var log = new Recorder();
        await using var node = new TestNode(postgres) { Configure = s => s.AddSingleton<ILoggerProvider>(log) };
        await node.InitializeAsync();
        var password = new NpgsqlConnectionStringBuilder(node.Database).Password;
        Assert.True(password is { Length: > 8 });
        (string, string)[] headers =
        [
            ("Authorization", $"Bearer {Secret}"), ("Cookie", $"session={Secret}"), ("Proxy-Authorization", $"Basic {Secret}"), ("X-Api-Key", Secret), ("baggage", $"token={Secret}"), ("User-Agent", Secret),
        ];

        var known = headers[1..]; // a credential that is none is answered before all else
        Answer[] answers =
        [
            await node.GetAsIs("/v1/users", headers),
            await node.Post("/v1/segments", new { slug = "S" }, headers),
            await node.GetAsIs("/v1/users", known),
            await node.GetAsIs("/nowhere", known),
            await node.Post("/v1/segments", new { slug = "S" }, known),
            await node.Post("/v1/segments", "{", known),
            await node.Put("/v1/users/u1", new { }, known),
            await node.Put("/v1/users/u1", new { }, [.. known, ("If-Match", Secret)]),
            await node.GetAsIs("/v1/users", [.. known, ("Accept", $"text/html;{Secret}=1")]),
        ];
        await ReachNothing(node, known);
        var metrics = (await node.GetAsIs("/metrics")).Is(HttpStatusCode.OK).Text;

        Assert.NotEmpty(log.Lines);
        foreach (var secret in (string[])[Secret, password])
        {
            Assert.DoesNotContain(log.Lines, l => l.Contains(secret, StringComparison.Ordinal));
            Assert.DoesNotContain(secret, metrics, StringComparison.Ordinal);
            Assert.DoesNotContain(answers.Where(a => a.Status != HttpStatusCode.NotAcceptable), a => a.Text.Contains(secret, StringComparison.Ordinal));
            Assert.DoesNotContain(await node.Log(), e => System.Text.Encoding.UTF8.GetString(e.Json.Span).Contains(secret, StringComparison.Ordinal) || $"{e.Actor} {e.CorrelationId} {e.TraceParent}".Contains(secret, StringComparison.Ordinal));
        }
    }

    /// <summary>An error of the database, whose text names what it was about.</summary>
    private static async Task ReachNothing(TestNode node, (string, string)[] headers)
    {
        await using var connection = new NpgsqlConnection($"{node.Database};Pooling=false");
        await connection.OpenAsync(TestContext.Current.CancellationToken);
        await using var command = new NpgsqlCommand("alter table ledger.users rename to users_away", connection);
        await command.ExecuteNonQueryAsync(TestContext.Current.CancellationToken);
        (await node.GetAsIs("/v1/users", headers)).IsProblem(500, "internal-error");
        command.CommandText = "alter table ledger.users_away rename to users";
        await command.ExecuteNonQueryAsync(TestContext.Current.CancellationToken);
    }

    private sealed class Recorder : ILoggerProvider, ILogger
    {
        public ConcurrentQueue<string> Lines { get; } = [];

        public ILogger CreateLogger(string categoryName) => this;

        public void Dispose()
        {
        }

        public IDisposable? BeginScope<TState>(TState state) where TState : notnull => null;

        public bool IsEnabled(LogLevel logLevel) => true;

        public void Log<TState>(LogLevel logLevel, Microsoft.Extensions.Logging.EventId eventId, TState state, Exception? exception, Func<TState, Exception?, string> formatter) =>
            Lines.Enqueue($"{logLevel} {formatter(state, exception)} {exception}");
    }
}
