using System.Globalization;
using Ledger.EventStore.Tests.Support;
using Ledger.Testing;
using static Ledger.EventStore.Tests.Support.TestStore;

namespace Ledger.EventStore.Tests.Transparency;

/// <summary>Whatever is changed in a database, verifying it finds it.</summary>
public sealed class Verifying(PostgresFixture postgres)
{
    private const int Events = SealedStore.Events;

    /// <summary>What somebody with a hand in the tables can do to the event at a position, P.</summary>
    private static readonly string[] ChangesOfAnEvent =
    [
        "set id = overlay(id::text placing case when right(id::text, 1) = '0' then '1' else '0' end from 36)::uuid",
        "set stream_id = stream_id || 'x'",
        "set stream_id = null",
        "set version = version + 1000",
        "set data = data || '{\"extra\":0}'",
        "set data = '{}'",
        "set data = replace(data::text, '1', '2')::jsonb || '{\"n\":1.5}'",
        "set bdata = '\\x00'",
        "set type = type || 'x'",
        "set timestamp = timestamp + interval '1 microsecond'",
        "set timestamp = 'infinity'",
        "set tenant_id = 'a third'",
        "set tenant_id = case tenant_id when 't1' then 't2' else 't1' end, stream_id = stream_id || '-'",
        "set tenant_id = null",
        "set mt_dotnet_type = mt_dotnet_type || ' '",
        "set mt_dotnet_type = null",
        "set correlation_id = coalesce(correlation_id, '') || 'x'",
        "set correlation_id = case when correlation_id is null then '' end",
        "set causation_id = case when causation_id is null then '' end",
        "set headers = coalesce(headers, '{}') || '{\"x\":1}'",
        "set headers = case when headers is null then '{}'::jsonb end",
        "set user_name = coalesce(user_name, '') || 'x'",
        "set user_name = case when user_name is null then '' end",
        "set is_archived = true",
        "set seq_id = seq_id + 1000000",
    ];

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task finds_every_change_of_every_column_of_an_event()
    {
        var chance = Runs.Chance();
        await using var log = await SealedStore.Make(postgres);
        foreach (var change in ChangesOfAnEvent)
        {
            foreach (var position in (int[])[1, chance.Next(2, Events), Events])
            {
                await log.Store.Execute($"update mt_events {change} where seq_id = {position}");

                var verdict = await log.Verify();

                Assert.True(verdict.Finding?.Position == position, $"{change} at {position}: {verdict.Finding}");
                await log.Restore();
            }
        }

        Assert.Null((await log.Verify()).Finding);
    }

    [Fact]
    public async Task finds_every_flipped_byte_of_tiles_salts_and_checkpoint()
    {
        var chance = Runs.Chance();
        await using var log = await SealedStore.Make(postgres);
        (string Table, string Column, string Key)[] bytes =
        [
            ("log_tiles", "hashes", "level = 0 and index = 0"), ("log_tiles", "hashes", "level = 0 and index = 1"), ("log_tiles", "hashes", "level = 0 and index = 2"),
            ("log_tiles", "hashes", "level = 1"), ("log_salts", "salts", "bundle = 0"), ("log_salts", "salts", "bundle = 2"),
            ("log_tenants", "pseudonym", "tenant_id = 't1'"), ("log_tenants", "pseudonym", "tenant_id = 't2'"),
            ("log_state", "root", "true"), ("log_checkpoint", "root", "true"), ("log_checkpoint", "note", "true"),
        ];
        foreach (var (table, column, key) in bytes)
        {
            var length = await log.Store.Value<int>($"select length({column}) from {table} where {key}");
            for (var round = 0; round < Runs.Size(6, 200); round++)
            {
                var (at, bit) = (chance.Next(length), 1 << chance.Next(8));
                await log.Store.Execute($"update {table} set {column} = set_byte({column}, {at}, get_byte({column}, {at}) # {bit}) where {key}");

                var verdict = await log.Verify();

                Assert.True(verdict.Finding is not null, $"{table}.{column} where {key}, byte {at}, bit {bit}");
                if (table == "log_salts" || (table == "log_tiles" && key.StartsWith("level = 0", StringComparison.Ordinal)))
                {
                    var bundle = int.Parse(key[^1..], CultureInfo.InvariantCulture);
                    Assert.Equal((bundle * 256) + (at / (table == "log_salts" ? 16 : 32)) + 1, verdict.Finding.Position);
                }

                await log.Restore();
            }
        }
    }

    [Theory]
    [InlineData("delete from mt_events where seq_id = 700", 700)]
    [InlineData("delete from mt_events where seq_id > 690", 691)]
    [InlineData("delete from mt_events", 1)]
    [InlineData("delete from mt_events where seq_id = 300", 300)]
    [InlineData("delete from mt_events where seq_id = 300; update mt_events set seq_id = seq_id - 1 where seq_id > 300", 300)]
    [InlineData("update mt_events set seq_id = 900000 where seq_id = 5; update mt_events set seq_id = 5 where seq_id = 9; update mt_events set seq_id = 9 where seq_id = 900000", 5)]
    [InlineData("update mt_events a set data = b.data from mt_events b where (a.seq_id, b.seq_id) in ((20, 21), (21, 20))", 20)]
    [InlineData("delete from log_salts where bundle = 1", 257)]
    [InlineData("update log_salts set salts = substr(salts, 1, 32) where bundle = 0", 3)]
    [InlineData("delete from log_tiles where level = 0 and index = 1", 257)]
    [InlineData("delete from log_tiles where level = 1", null)]
    [InlineData("delete from log_tenants", 1)]
    [InlineData("delete from log_keys", null)]
    [InlineData("update log_checkpoint set size = size - 1", null)]
    [InlineData("update log_state set size = size - 1", 700)]
    [InlineData("update mt_streams set version = version + 1 where id = (select min(id) from mt_streams)", null)]
    [InlineData("delete from mt_streams where id = (select min(id) from mt_streams)", null)]
    [InlineData("insert into mt_streams (id, version) values ('another', 1)", null)]
    [InlineData("insert into log_erasures (position, commitments) values (7, decode(repeat('00', 64), 'hex'))", 7)]
    [InlineData("update mt_events set data = '{}' where seq_id = 7; insert into log_erasures (position, commitments) values (7, decode(repeat('00', 64), 'hex'))", 7)]
    [InlineData("update mt_events set data = '{}' where seq_id = 7; update log_salts set salts = overlay(salts placing decode(repeat('00', 16), 'hex') from 6 * 16 + 1) where bundle = 0; insert into log_erasures (position, commitments) values (7, decode(repeat('00', 64), 'hex'))", 7)]
    public async Task finds_what_is_missing_moved_or_added(string change, int? position)
    {
        await using var log = await SealedStore.Make(postgres);
        await log.Store.Execute(change);

        // The list of keys is the database's own; a verifier has another.
        var verdict = change == "delete from log_keys" ? await new LogVerifier(log.Source, []).Verify([], Ct) : await log.Verify();

        Assert.NotNull(verdict.Finding);
        Assert.Equal(position, verdict.Finding.Position);
    }

    [Fact]
    public async Task finds_an_older_copy_under_a_newer_checkpoint()
    {
        await using var log = await SealedStore.Make(postgres);
        await log.Append(20);
        var newer = await log.Store.Value<byte[]>("select note from log_checkpoint");
        Assert.Null((await log.Verify(newer)).Finding);
        await log.Restore();

        var verdict = await log.Verify(newer);

        Assert.Equal(Events + 1, verdict.Finding?.Position);
        Assert.Contains("covers 720 events", verdict.Finding!.What, StringComparison.Ordinal);
    }

    /// <summary>Who can write to all tables, and sign with a key of his own, still has no signature by the right key, and no past root.</summary>
    [Fact]
    public async Task finds_a_log_that_was_made_anew_from_changed_events()
    {
        await using var log = await SealedStore.Make(postgres);
        var kept = await log.Store.Value<byte[]>("select note from log_checkpoint");
        var origin = await log.Store.Value<string>("select origin from log_state");
        await log.Store.Execute("update mt_events set data = '{\"account\":\"mine\",\"amount\":1}' where seq_id = 44; truncate log_state, log_tiles, log_salts, log_tenants, log_checkpoint, log_keys");
        await log.SealAll(origin);
        var own = await new TransparencyLog(log.Store.Database).ReadKeys(Ct);
        var forged = own.Select(k => NoteKey.TryParse(k, out var key) ? key : throw new InvalidDataException(k)).ToArray();

        Assert.Null((await new LogVerifier(log.Source, forged).Verify([], Ct)).Finding);
        Assert.Contains("can't be trusted", (await log.Verify()).Finding!.What, StringComparison.Ordinal);
        Assert.Contains("another root", (await new LogVerifier(log.Source, [.. forged, .. log.Keys]).Verify([("the kept one", kept)], Ct)).Finding!.What, StringComparison.Ordinal);
    }

    [Fact]
    public async Task accepts_a_log_that_is_right_with_what_is_erased_or_not_sealed_yet()
    {
        await using var log = await SealedStore.Make(postgres);
        var kept = await log.Store.Value<byte[]>("select note from log_checkpoint");
        Assert.Equal(new LogVerdict(null, Events, Events, 0), await log.Verify(kept));

        var entry = (await new TransparencyLog(log.Store.Database).ReadEntry(7, Ct))!.Entry;
        await log.Store.Execute(
            $$"""
            insert into log_erasures (position, commitments) values (7, '\x{{Convert.ToHexString(entry.AsSpan(^64..))}}');
            update log_salts set salts = overlay(salts placing decode(repeat('00', 16), 'hex') from 6 * 16 + 1) where bundle = 0;
            update mt_events set data = '{}' where seq_id = 7;
            """);
        await log.Store.StartAppender().Append(Request("late", new Noted("not sealed")), Ct);

        Assert.Equal(new LogVerdict(null, Events, Events, 1), await log.Verify(kept));
        await log.Append(5);
        Assert.Equal(new LogVerdict(null, Events + 6, Events + 6, 1), await log.Verify(kept));
    }
}
