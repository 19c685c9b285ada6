using Ledger.Testing;
using Microsoft.Extensions.Logging.Abstractions;
using static Ledger.EventStore.Tests.Support.TestStore;

namespace Ledger.EventStore.Tests.Support;

/// <summary>A store with events of two tenants, all sealed and covered, and nobody at work on it.</summary>
internal sealed class SealedStore : IAsyncDisposable
{
    public const int Events = 700;
    private static readonly string[] Tables = ["mt_events", "mt_streams", "log_state", "log_tiles", "log_salts", "log_tenants", "log_erasures", "log_checkpoint", "log_keys"];

    private SealedStore(TestStore store)
    {
        Store = store;
        Source = new DatabaseLog(store.Database, new TransparencyLog(store.Database));
    }

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    public TestStore Store { get; }

    public DatabaseLog Source { get; }

    public IReadOnlyList<NoteKey> Keys { get; private set; } = [];

    public static async Task<SealedStore> Make(PostgresFixture postgres)
    {
        var log = new SealedStore(await TestStore.Create(postgres));
        await log.Store.Execute("insert into daemon_lease values ('daemon', 'test', 7, 'infinity')");
        await log.Append(Events);
        log.Keys = [.. (await new TransparencyLog(log.Store.Database).ReadKeys(Ct)).Select(k => NoteKey.TryParse(k, out var key) ? key : throw new InvalidDataException(k))];
        await log.Store.Execute("create schema saved" + string.Concat(Tables.Select(t => $"; create table saved.{t} as table {t}")));
        return log;
    }

    public async Task Append(int events)
    {
        var appender = Store.StartAppender();
        await Task.WhenAll(Enumerable.Range(0, events).Select(i => appender.Append(
            Request($"s{i % 9}", new Deposited($"a{i}", i)) with
            {
                TenantId = i % 3 == 0 ? "t2" : "t1", Actor = i % 2 == 0 ? "somebody" : null, CorrelationId = i % 5 == 0 ? "c" : null, CausationId = i % 7 == 0 ? "" : null,
            }, Ct)));
        await SealAll(null);
    }

    public async Task SealAll(string? origin)
    {
        var keyring = new LogKeyring(Store.Database, new TransparencyOptions { Folder = Store.LogFolder, Origin = origin });
        await keyring.Open(Ct);
        var sealer = new Sealer(Store.Database, new TransparencyLog(Store.Database), keyring, () => 7, TestNode.Quick, NullLogger<Sealer>.Instance);
        while (await sealer.SealPage(7, Ct) > 0)
        {
        }

        await sealer.Publish(7, Ct);
    }

    public async Task<LogVerdict> Verify(params byte[][] earlier) =>
        await new LogVerifier(Source, Keys).Verify([.. earlier.Select(note => ("the kept checkpoint", note))], Ct);

    public Task Restore() => Store.Execute(string.Concat(Tables.Select(t => $"truncate {t}; insert into {t} table saved.{t};")));

    public ValueTask DisposeAsync() => Store.DisposeAsync();
}
