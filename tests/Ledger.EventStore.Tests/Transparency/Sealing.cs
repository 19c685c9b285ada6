using System.Text;
using Ledger.EventStore.Tests.Support;
using Ledger.Testing;
using Microsoft.Extensions.Logging.Abstractions;
using Npgsql;
using static Ledger.EventStore.Tests.Support.TestStore;

namespace Ledger.EventStore.Tests.Transparency;

/// <summary>What must hold of every log, whatever has failed: checked from the tables alone.</summary>
internal static class SoundLog
{
    /// <summary>Every event up to the checkpoint is a leaf in its place, the tiles are those of the leaves, the checkpoint is signed over their root.</summary>
    public static async Task<Checkpoint> Assert_(TestStore store)
    {
        var ct = TestContext.Current.CancellationToken;
        var log = new TransparencyLog(store.Database);
        var shown = await log.ReadCheckpoint(ct);
        Assert.NotNull(shown);
        var note = SignedNote.Parse(shown.Note);
        note.Verify((await log.ReadKeys(ct)).Select(k => NoteKey.TryParse(k, out var key) ? key : throw new InvalidDataException(k)));
        var checkpoint = Checkpoint.Parse(note.Text);
        Assert.Equal((shown.Size, shown.Root), (checkpoint.Size, checkpoint.Root));

        var size = await store.Value<long>("select size from log_state");
        var tree = new GrowingTree();
        MerkleHash? rootThen = shown.Size == 0 ? MerkleTree.Empty : null;
        for (var first = 0L; first < size; first += 256)
        {
            var bundle = await log.ReadEntryTile(first / 256, (int)Math.Min(256, size - first), ct);
            Assert.NotNull(bundle);
            for (var at = 0; at < bundle.Length;)
            {
                var length = (bundle[at] << 8) | bundle[at + 1];
                tree.Append(MerkleTree.Leaf(bundle.AsSpan(at + 2, length)));
                at += 2 + length;
                if (tree.Size == shown.Size)
                {
                    rootThen = tree.Root();
                }
            }
        }

        Assert.Equal(size, tree.Size);
        Assert.Equal(shown.Root, rootThen);
        var tiles = tree.Grown().ToDictionary(t => t.Id, t => t.Hashes);
        Assert.Equal(tiles.Count, await store.Value<long>("select count(*) from log_tiles"));
        Assert.All(await log.ReadTiles(tiles.Keys, ct), t => Assert.Equal(tiles[t.Key], t.Value));
        Assert.Equal(size * 16, await store.Value<long>("select coalesce(sum(length(salts)), 0)::bigint from log_salts"));
        return checkpoint;
    }
}

public sealed class A_sealed_log(PostgresFixture postgres)
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task says_that_it_can_make_no_key_and_goes_on_when_it_can()
    {
        await using var store = await TestStore.Create(postgres);
        await store.StartAppender().Append(Request("a", new Ignored()), Ct);
        Directory.Delete(store.LogFolder, recursive: true);
        await File.WriteAllTextAsync(store.LogFolder, "in the way", Ct);
        await using var node = await TestNode.Start(store);

        await Runs.Until(() => Task.FromResult(node.Sealer.Refusal?.Contains("can't be written", StringComparison.Ordinal) == true), "it says that the key can't be written");

        File.Delete(store.LogFolder);
        Directory.CreateDirectory(store.LogFolder);
        await node.Covered();
        await Runs.Until(() => Task.FromResult(node.Sealer.Refusal is null), "nothing is wrong any more");
    }

    [Fact]
    public async Task by_nodes_that_start_together_is_with_one_key_which_stays()
    {
        await using var store = await TestStore.Create(postgres);
        for (var round = 0; round < Runs.Size(5, 100); round++)
        {
            await store.Execute("truncate log_state, log_keys");
            var options = new TransparencyOptions { Folder = Path.Combine(store.LogFolder, $"{round}") };

            var opened = await Task.WhenAll(Enumerable.Range(0, 8).Select(_ => Task.Run(() => new LogKeyring(store.Database, options).Open(Ct))));

            var identity = Assert.Single(opened.Distinct());
            var signer = await new LogKeyring(store.Database, options).Load(identity, Ct);
            Assert.Equal([signer.Key.ToString()], await new TransparencyLog(store.Database).ReadKeys(Ct));
        }
    }

    [Fact]
    public async Task has_every_event_as_a_leaf_and_a_signed_checkpoint()
    {
        await using var store = await TestStore.Create(postgres);
        await using var node = await TestNode.Start(store);
        await Runs.Until(async () => await node.Log.ReadCheckpoint(Ct) is { Size: 0 }, "the empty log has a checkpoint");
        var appender = store.StartAppender();
        for (var round = 0; round < 8; round++)
        {
            await Deposits.Append(appender, 60);
            await node.Covered();
        }

        var checkpoint = await SoundLog.Assert_(store);

        Assert.Equal(await store.Reader.ReadHead(Ct), checkpoint.Size);
        Assert.Null(node.Sealer.Refusal);
        var identity = await node.Keyring.Open(Ct);
        Assert.Equal(identity.Origin, checkpoint.Origin);
        Assert.Equal((await node.Log.ReadCheckpoint(Ct))!.Note, await File.ReadAllBytesAsync(identity.CheckpointPath, Ct));
        if (!OperatingSystem.IsWindows())
        {
            Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, File.GetUnixFileMode(identity.KeyPath));
        }
    }

    [Fact]
    public async Task is_made_of_what_the_daemon_has_read_where_it_has_copied_pages()
    {
        await using var log = await SealedStore.Make(postgres);
        var store = log.Store;
        var pages = new PagesToSeal();
        var keyring = new LogKeyring(store.Database, new TransparencyOptions { Folder = store.LogFolder });
        await using var sealer = new Sealer(
            store.Database, new TransparencyLog(store.Database), keyring, () => 7, TestNode.Quick, NullLogger<Sealer>.Instance, pages) { Interval = TimeSpan.FromMilliseconds(20) };
        var appender = store.StartAppender();
        await appender.Append(Request("more", new Deposited("a", 1)), Ct);
        sealer.Start();
        await Runs.Until(async () => await store.Value<long>("select size from log_checkpoint") == SealedStore.Events + 1, "it is at work");
        await appender.Append(Request("more", [.. Enumerable.Repeat(new Deposited("a", 1), 99)]), Ct);
        await using var connection = await store.Database.OpenConnectionAsync(Ct);
        pages.Offer((await store.Reader.CopyPage(connection, 0, 50, 50, Ct)).Rows!); // long sealed
        pages.Offer((await store.Reader.CopyPage(connection, SealedStore.Events - 10, long.MaxValue, 30, Ct)).Rows!); // begins before what is sealed
        pages.Offer((await store.Reader.CopyPage(connection, SealedStore.Events + 20, long.MaxValue, 30, Ct)).Rows!); // sealed together with the one before
        pages.Offer((await store.Reader.CopyPage(connection, SealedStore.Events + 70, long.MaxValue, 30, Ct)).Rows!); // not the next
        await store.Execute("update mt_events set data = '{\"account\":\"a\",\"amount\":2}' where seq_id in (740, 760)");

        sealer.Wake();
        await Runs.Until(async () => await store.Value<long>("select size from log_checkpoint") == SealedStore.Events + 100, "all is signed");

        // What was read before somebody changed it is what was sealed; what was read afterwards is not.
        Assert.Equal(740, (await log.Verify()).Finding?.Position);
        await store.Execute("update mt_events set data = '{\"account\":\"a\",\"amount\":1}' where seq_id = 740");
        Assert.Null((await log.Verify()).Finding);
        Assert.Null(pages.Find(0));
    }

    [Fact]
    public async Task follows_a_daemon_that_copies_pages()
    {
        await using var store = await TestStore.Create(postgres);
        await using var node = await TestNode.Start(store, TestNode.Quick with { MaxProjectionBatch = 16 });
        var appender = store.StartAppender();
        for (var i = 0; i < 40; i++)
        {
            await appender.Append(Request($"s{i % 3}", [.. Enumerable.Range(0, 10 + (i * 7 % 90)).Select(n => new Deposited($"a{n}", n))]), Ct);
        }

        await node.CatchUp();
        var head = await store.Reader.ReadHead(Ct);
        await Runs.Until(async () => await store.Value<long>("select coalesce(max(size), 0)::bigint from log_checkpoint") == head, "all is signed");

        await SoundLog.Assert_(store);
        await node.AssertViewsEqualTheLog();
        Assert.False(node.Daemon.ToSeal.MayCome(head));
    }

    [Fact]
    public async Task names_nobody_and_gives_each_event_a_salt_of_its_own()
    {
        await using var store = await TestStore.Create(postgres);
        await using var node = await TestNode.Start(store);
        var appender = store.StartAppender();
        await appender.Append(Request("s", new Noted("same"), new Noted("same")) with { Actor = "" }, Ct);
        await appender.Append(Request("s", new Noted("same")), Ct);
        await appender.Append(Request("s", new Noted("same")) with { TenantId = "another tenant" }, Ct);
        await node.Covered();

        var entries = await Task.WhenAll(Enumerable.Range(1, 4).Select(p => node.Log.ReadEntry(p, Ct)));

        Assert.All(entries, e =>
        {
            Assert.Equal(-1, e!.Entry.AsSpan().IndexOf("same"u8));
            Assert.Equal(-1, e.Entry.AsSpan().IndexOf("tenant"u8));
        });
        Assert.Equal(4, entries.Select(e => Convert.ToHexString(e!.Salt!)).Distinct().Count());
        Assert.Equal(2, entries.Select(e => Convert.ToHexString(e!.Entry.AsSpan(1, 16))).Distinct().Count());
        Assert.True(entries[0]!.Entry.AsSpan().IndexOf(Lengthy("")) > 0); // an actor that is empty
        Assert.True(entries[2]!.Entry.AsSpan(57).IndexOf((byte[])[0xFF, 0xFF]) > 0); // and one that is absent

        static byte[] Lengthy(string text) => [0, (byte)text.Length, .. Encoding.UTF8.GetBytes(text)];
    }

    /// <summary>The layout of docs/transparency-log.md, computed here by hand from the event as it is read.</summary>
    [Fact]
    public async Task has_entries_as_they_are_written_down()
    {
        await using var store = await TestStore.Create(postgres);
        await using var node = await TestNode.Start(store);
        await store.StartAppender().Append(Request("stream-ä", new Deposited("b", 7)) with { Actor = "me", CorrelationId = "c" }, Ct);
        await node.Covered();
        var recorded = Assert.Single(await store.Log());
        var leaf = (await node.Log.ReadEntry(1, Ct))!;
        var headers = await store.Lines("select headers::text from mt_events");
        var pseudonym = await store.Value<byte[]>("select pseudonym from log_tenants");

        var payload = System.Security.Cryptography.SHA256.HashData([.. leaf.Salt!, .. Canonical(Encoding.UTF8.GetString(recorded.Json.Span))]);
        var rest = System.Security.Cryptography.SHA256.HashData(
        [
            .. leaf.Salt!, 1, .. Field(4, await store.Value<string>("select mt_dotnet_type from mt_events")), .. Field(4, "c"), 0xFF, 0xFF, 0xFF, 0xFF,
            .. (headers is [{ Length: > 2 }] ? Field(4, Encoding.UTF8.GetString(Canonical(await store.Value<string>("select headers::text from mt_events")))) : (byte[])[0xFF, 0xFF, 0xFF, 0xFF]),
            0xFF, 0xFF, 0xFF, 0xFF,
        ]);
        byte[] expected =
        [
            1, .. pseudonym, .. Number(1), .. Number(1), .. recorded.Id.ToByteArray(bigEndian: true),
            .. Number((recorded.RecordedAt - DateTimeOffset.UnixEpoch).Ticks / TimeSpan.TicksPerMicrosecond),
            .. Field(2, "stream-ä"), .. Field(2, "deposited"), .. Field(2, "me"), .. payload, .. rest,
        ];

        Assert.Equal(Convert.ToHexString(expected), Convert.ToHexString(leaf.Entry));

        static byte[] Number(long number)
        {
            var bytes = BitConverter.GetBytes(number);
            Array.Reverse(bytes);
            return bytes;
        }

        static byte[] Field(int lengthBytes, string text)
        {
            var bytes = Encoding.UTF8.GetBytes(text);
            return [.. Number(bytes.Length)[^lengthBytes..], .. bytes];
        }

        static byte[] Canonical(string json)
        {
            var output = new ByteBuffer();
            CanonicalJson.Write(Encoding.UTF8.GetBytes(json), output);
            return output.Written.ToArray();
        }
    }

    [Fact]
    public async Task takes_events_as_large_and_as_odd_as_another_program_may_write_them()
    {
        await using var store = await TestStore.Create(postgres);
        await store.Execute(
            """
            insert into mt_streams (tenant_id, id, version) values (repeat('t', 9000), repeat('s', 2000), 1);
            insert into mt_events (seq_id, id, stream_id, version, data, bdata, type, timestamp, tenant_id, user_name, correlation_id, headers)
            values (1, gen_random_uuid(), repeat('s', 2000), 1, ('{"a":' || repeat('[', 500) || '1e999' || repeat(']', 500) || '}')::jsonb, '\x00ff', repeat('t', 500),
                    '1969-12-31 23:59:59.999999+00', repeat('t', 9000), repeat('u', 70000), repeat('c', 70000), '{"b":1.10,"a":null}');
            """.Replace("repeat('t', 9000)", "repeat('t', 600)", StringComparison.Ordinal));
        await using var node = await TestNode.Start(store);

        await node.Covered();

        await SoundLog.Assert_(store);
        Assert.InRange((await node.Log.ReadEntry(1, Ct))!.Entry.Length, 500, LeafEnvelope.MaxBytes);
    }

    [Fact]
    public async Task keeps_its_proofs_when_an_event_is_erased()
    {
        await using var store = await TestStore.Create(postgres);
        await using var node = await TestNode.Start(store);
        await Deposits.Append(store.StartAppender(), 20);
        await node.Covered();
        var before = (await node.Log.ReadEntry(5, Ct))!;

        await store.Execute(
            $$"""
            insert into log_erasures (position, commitments) values (5, '\x{{Convert.ToHexString(before.Entry.AsSpan(^64..))}}');
            update log_salts set salts = overlay(salts placing decode(repeat('00', 16), 'hex') from 4 * 16 + 1) where bundle = 0;
            update mt_events set data = '{}', correlation_id = null, causation_id = null, headers = null where seq_id = 5;
            """);

        var after = (await node.Log.ReadEntry(5, Ct))!;
        Assert.Equal(before.Entry, after.Entry);
        Assert.Null(after.Salt);
        await SoundLog.Assert_(store);
    }

    [Fact]
    public async Task goes_on_under_another_node_and_another_key()
    {
        await using var store = await TestStore.Create(postgres);
        var appender = store.StartAppender();
        await using (var first = await TestNode.Start(store))
        {
            await Deposits.Append(appender, 30);
            await first.Covered();
        }

        await using var second = await TestNode.Start(store);
        await Deposits.Append(appender, 30);
        await second.Covered();
        var old = Assert.Single(await second.Log.ReadKeys(Ct));

        var rotated = await second.Keyring.Rotate(Ct);
        await Deposits.Append(appender, 30);
        await second.Covered();

        Assert.Equal([rotated.ToString(), old], await second.Log.ReadKeys(Ct));
        Assert.Null(second.Sealer.Refusal);
        await SoundLog.Assert_(store);
        var note = SignedNote.Parse((await second.Log.ReadCheckpoint(Ct))!.Note);
        Assert.Single(note.Verify(rotated));
        var identity = await second.Keyring.Open(Ct);
        Assert.False(File.Exists($"{identity.KeyPath}.next"));
        Assert.True(File.Exists($"{identity.KeyPath}.{(NoteKey.TryParse(old, out var key) ? key.IdText : "")}"));
    }

    [Fact]
    public async Task keeps_the_secret_of_every_key_however_many_rotate_and_sign_at_once()
    {
        await using var store = await TestStore.Create(postgres);
        var options = new TransparencyOptions { Folder = store.LogFolder };
        var identity = await new LogKeyring(store.Database, options).Open(Ct);
        for (var round = 0; round < Runs.Size(5, 50); round++)
        {
            using var over = CancellationTokenSource.CreateLinkedTokenSource(Ct);
            var signing = Enumerable.Range(0, 4).Select(_ => Task.Run(async () =>
            {
                while (!over.IsCancellationRequested)
                {
                    await new LogKeyring(store.Database, options).Load(identity, Ct);
                }
            })).ToArray();
            try
            {
                await Task.WhenAll(Enumerable.Range(0, 6).Select(_ => Task.Run(() => new LogKeyring(store.Database, options).Rotate(Ct))));
            }
            finally
            {
                await over.CancelAsync();
            }

            await Task.WhenAll(signing);

            var listed = await new TransparencyLog(store.Database).ReadKeys(Ct);
            Assert.Equal(1 + (6 * (round + 1)), listed.Count);
            Assert.Equal(listed[0], SigningKeyFile.Load(identity.KeyPath).Key.ToString());
            var secrets = Directory.GetFiles(store.LogFolder, "*.key*").Where(f => !f.EndsWith(".lock", StringComparison.Ordinal));
            Assert.Equal(listed.Order(), secrets.Select(f => SigningKeyFile.Load(f).Key.ToString()).Order());
        }
    }

    [Fact]
    public async Task goes_on_with_the_new_key_where_a_rotation_stopped_halfway()
    {
        await using var store = await TestStore.Create(postgres);
        var keyring = new LogKeyring(store.Database, new TransparencyOptions { Folder = store.LogFolder });
        var identity = await keyring.Open(Ct);
        var old = (await keyring.Load(identity, Ct)).Key;
        var rotated = $"{await keyring.Rotate(Ct)}";
        var (next, kept) = ($"{identity.KeyPath}.next", $"{identity.KeyPath}.{old.IdText}");

        File.Move(identity.KeyPath, next); // between its two moves
        Assert.Equal(rotated, $"{(await keyring.Load(identity, Ct)).Key}");

        File.Move(identity.KeyPath, next); // before both
        File.Move(kept, identity.KeyPath);
        Assert.Equal(rotated, $"{(await keyring.Load(identity, Ct)).Key}");

        File.Copy(identity.KeyPath, next); // somebody has put it in its place by hand
        Assert.Equal(rotated, $"{(await keyring.Load(identity, Ct)).Key}");

        Assert.Equal([identity.KeyPath, kept], Directory.GetFiles(store.LogFolder, "*.key*").Where(f => !f.EndsWith(".lock", StringComparison.Ordinal)).Order(StringComparer.Ordinal));
    }

    [Fact]
    public async Task is_followed_by_a_node_that_has_no_folder_yet()
    {
        await using var store = await TestStore.Create(postgres);
        await using var leader = await TestNode.Start(store);
        await leader.Leads();
        await Deposits.Append(store.StartAppender(), 30);
        await leader.Covered();
        var folder = store.LogFolder;
        store.LogFolder = Path.Combine(folder, "of another machine", "log");

        await using var follower = await TestNode.Start(store);
        var identity = await follower.Keyring.Open(Ct);
        await Runs.Until(() => Task.FromResult(File.Exists(identity.CheckpointPath)), $"it keeps the checkpoint; it is {follower.Sealer.Refusal ?? "not refused"}");

        Assert.StartsWith(store.LogFolder, identity.CheckpointPath, StringComparison.Ordinal);
        await Runs.Until(() => Task.FromResult(follower.Sealer.Refusal is null), "it is ready");
        store.LogFolder = folder;
    }
}

public sealed class A_log_that_contradicts_itself(PostgresFixture postgres)
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task is_not_signed_when_an_older_copy_was_restored()
    {
        await using var store = await TestStore.Create(postgres);
        var appender = store.StartAppender();
        await using (var node = await TestNode.Start(store))
        {
            await Deposits.Append(appender, 30);
            await node.Covered();
        }

        await store.Execute("create schema older; create table older.state as table log_state; create table older.tiles as table log_tiles; create table older.salts as table log_salts; create table older.shown as table log_checkpoint");
        var head = await store.Reader.ReadHead(Ct);
        await using (var node = await TestNode.Start(store))
        {
            await Deposits.Append(appender, 30);
            await node.Covered();
        }

        await store.Execute(
            $"""
            delete from mt_events where seq_id > {head};
            truncate log_state; insert into log_state table older.state; truncate log_tiles; insert into log_tiles table older.tiles;
            truncate log_salts; insert into log_salts table older.salts; truncate log_checkpoint; insert into log_checkpoint table older.shown;
            """);
        await using var restored = await TestNode.Start(store);

        await Runs.Until(() => Task.FromResult(restored.Sealer.Refusal is not null), "it refuses to sign");

        Assert.Contains("older copy", restored.Sealer.Refusal, StringComparison.Ordinal);
        await store.StartAppender().Append(Request("new", [.. Enumerable.Range(0, 200).Select(_ => (object)new Noted("other"))]), Ct);
        await Runs.Until(async () => await store.Value<long>("select size from log_state") == head + 200, "it seals on");
        await Runs.Until(() => Task.FromResult(restored.Sealer.Refusal!.Contains("they were changed", StringComparison.Ordinal)), "it finds another root");
        Assert.Equal(head, (await restored.Log.ReadCheckpoint(Ct))!.Size);
        await Runs.Until(async () => restored.Sealer.Refusal == await store.Value<string>("select refusal from log_state"), "everybody can read why");
    }

    [Theory]
    [InlineData("update log_tiles set hashes = set_byte(hashes, 40, get_byte(hashes, 40) # 1) where level = 0 and index = 0")]
    [InlineData("update log_tiles set hashes = substr(hashes, 1, 64) where level = 0")]
    [InlineData("delete from log_tiles where level = 0")]
    [InlineData("update log_state set root = set_byte(root, 3, get_byte(root, 3) # 1)")]
    [InlineData("update log_state set reserved_size = size + 100, reserved_root = root")]
    [InlineData("update log_checkpoint set root = set_byte(root, 3, get_byte(root, 3) # 1)")]
    [InlineData("update log_checkpoint set size = size + 100")]
    [InlineData("delete from log_state; insert into log_state select 'log', gen_random_uuid(), 'another', 0, sha256('')")]
    public async Task is_not_signed_when_its_tables_were_changed(string change)
    {
        await using var store = await TestStore.Create(postgres);
        var appender = store.StartAppender();
        await using (var node = await TestNode.Start(store))
        {
            await Deposits.Append(appender, 30);
            await node.Covered();
        }

        var before = await store.Value<byte[]>("select note from log_checkpoint");
        await store.Execute(change);
        await using var changed = await TestNode.Start(store);
        await appender.Append(Request("s", new Noted("x")), Ct);

        await Runs.Until(() => Task.FromResult(changed.Sealer.Refusal is not null), "it refuses to sign");

        Assert.Equal(before, await store.Value<byte[]>("select note from log_checkpoint"));
    }

    [Fact]
    public async Task is_not_signed_by_a_key_that_is_not_its_own()
    {
        await using var store = await TestStore.Create(postgres);
        var appender = store.StartAppender();
        LogIdentity identity;
        await using (var node = await TestNode.Start(store))
        {
            await node.Covered();
            identity = await node.Keyring.Open(Ct);
        }

        var right = await File.ReadAllTextAsync(identity.KeyPath, Ct);
        File.Delete(identity.KeyPath);
        SigningKeyFile.Create(identity.KeyPath, identity.Origin);
        await using var other = await TestNode.Start(store);
        await appender.Append(Request("s", new Noted("x")), Ct);
        await Runs.Until(() => Task.FromResult(other.Sealer.Refusal?.Contains("is signed by", StringComparison.Ordinal) == true), "it refuses the key");
        await Assert.ThrowsAsync<SigningKeyException>(() => other.Keyring.Rotate(Ct));

        File.Delete(identity.KeyPath);
        await Runs.Until(() => Task.FromResult(other.Sealer.Refusal?.Contains("can't be read", StringComparison.Ordinal) == true), "it misses the key");
        await File.WriteAllTextAsync(identity.KeyPath, right, Ct);
        if (!OperatingSystem.IsWindows())
        {
            File.SetUnixFileMode(identity.KeyPath, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.GroupRead);
            await Runs.Until(() => Task.FromResult(other.Sealer.Refusal?.Contains("chmod 600", StringComparison.Ordinal) == true), "it refuses a key that others may read");
            File.SetUnixFileMode(identity.KeyPath, UnixFileMode.UserRead | UnixFileMode.UserWrite);
        }

        await Runs.Until(() => Task.FromResult(other.Sealer.Refusal is null), "it signs again");
        Assert.Equal(1, (await other.Covered()).Size);
    }

    [Theory]
    [InlineData("no note")]
    [InlineData("o\n5\nYeW3m0rrRtdF0jKp4Z6FF/MaCPW/wHpHSqW4KrWAG9o=\n\n— o AAAAAAA=\n")]
    public async Task is_not_signed_when_what_was_kept_outside_is_damaged(string content)
    {
        await using var store = await TestStore.Create(postgres);
        LogIdentity identity;
        await using (var node = await TestNode.Start(store))
        {
            await node.Covered();
            identity = await node.Keyring.Open(Ct);
        }

        await File.WriteAllTextAsync(identity.CheckpointPath, content, Ct);
        await using var again = await TestNode.Start(store);

        await Runs.Until(() => Task.FromResult(again.Sealer.Refusal?.Contains("can't be trusted", StringComparison.Ordinal) == true), "it refuses");
    }
}

/// <summary>Every step fails, before it is done and after; the log is as it should be at every moment.</summary>
public sealed class A_failing_step(PostgresFixture postgres)
{
    private static readonly string[] Steps = ["read", "seal", "reserve", "sign", "keep", "show"];

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    public static TheoryData<string, bool> Failures()
    {
        var failures = new TheoryData<string, bool>();
        foreach (var step in Steps)
        {
            failures.Add(step, false);
            failures.Add(step, true);
        }

        return failures;
    }

    [Theory]
    [MemberData(nameof(Failures))]
    public async Task does_no_harm(string step, bool done)
    {
        await using var store = await TestStore.Create(postgres);
        await using var lease = await Lease.Take(store);
        var watch = new Watch(store);
        var failures = 0;
        var appender = store.StartAppender();
        for (var round = 0; round < 4; round++)
        {
            await Deposits.Append(appender, 40);
            var faulty = lease.Sealer((s, d) =>
            {
                if (s == step && d == done)
                {
                    failures++;
                    throw new IOException($"{step} {(done ? "done, reported failed" : "not done")}");
                }
            });
            await Assert.ThrowsAnyAsync<Exception>(() => Lease.SealAll(faulty, lease.Epoch));
            await watch.Look();
            if (round % 2 == 0)
            {
                await Deposits.Append(appender, 5); // what is signed next is not what failed
            }

            await Lease.SealAll(lease.Sealer(), lease.Epoch);
            await watch.Look();
            Assert.Equal(await store.Reader.ReadHead(Ct), (await SoundLog.Assert_(store)).Size);
        }

        Assert.Equal(4, failures);
    }

    /// <summary>A sealer whose steps fail by chance, the same object all the time, as a running node has it.</summary>
    [Fact]
    public async Task does_no_harm_whichever_it_is_and_whenever()
    {
        var chance = Runs.Chance();
        await using var store = await TestStore.Create(postgres);
        await using var lease = await Lease.Take(store);
        var watch = new Watch(store);
        var failures = 0;
        var broken = true;
        var sealer = lease.Sealer((_, _) =>
        {
            if (broken && chance.Next(6) == 0)
            {
                failures++;
                throw new IOException("by chance");
            }
        });
        sealer.Start();
        var appender = store.StartAppender();
        for (var round = 0; round < Runs.Size(25, 300); round++)
        {
            await Deposits.Append(appender, chance.Next(1, 30), chance);
            sealer.Wake();
            await watch.Look();
        }

        broken = false;
        var head = await store.Reader.ReadHead(Ct);
        await Runs.Until(
            async () =>
            {
                sealer.Wake();
                await watch.Look();
                return watch.Size == head;
            },
            "everything is covered");
        await sealer.DisposeAsync();
        Assert.True(failures > 0);
        await SoundLog.Assert_(store);
    }

    /// <summary>Two nodes that both think they lead, step by step in every order of chance.</summary>
    [Fact]
    public async Task of_two_nodes_at_once_never_makes_two_logs()
    {
        var chance = Runs.Chance();
        await using var store = await TestStore.Create(postgres);
        await using var lease = await Lease.Take(store);
        var watch = new Watch(store);
        Sealer[] sealers = [lease.Sealer((_, _) => Thread.Sleep(chance.Next(3))), lease.Sealer((_, _) => Thread.Sleep(chance.Next(3)))];
        var appender = store.StartAppender();
        for (var round = 0; round < Runs.Size(30, 300); round++)
        {
            await Deposits.Append(appender, chance.Next(1, 20), chance);
            await Task.WhenAll(sealers.Select(async s =>
            {
                try
                {
                    await Lease.SealAll(s, lease.Epoch);
                }
                catch (Exception exception) when (exception is LogFencedException or RefusedToSignException)
                {
                    // The other one was faster.
                }
            }));
            await watch.Look();
        }

        await Lease.SealAll(lease.Sealer(), lease.Epoch);
        await watch.Look();
        Assert.Equal(await store.Reader.ReadHead(Ct), watch.Size);
        await SoundLog.Assert_(store);
    }

    [Fact]
    public async Task of_a_node_that_does_not_lead_any_more_is_refused()
    {
        await using var store = await TestStore.Create(postgres);
        await using var lease = await Lease.Take(store);
        await Deposits.Append(store.StartAppender(), 10);
        var late = lease.Sealer();
        await Lease.SealAll(late, lease.Epoch);
        await Deposits.Append(store.StartAppender(), 10);
        await store.Execute("update daemon_lease set epoch = epoch + 1, holder = 'another'");

        await Assert.ThrowsAsync<LogFencedException>(() => late.SealPage(lease.Epoch, Ct));
        await Assert.ThrowsAnyAsync<Exception>(() => Lease.SealAll(late, lease.Epoch));
        Assert.Equal(await store.Value<long>("select size from log_checkpoint"), await store.Value<long>("select size from log_state"));
    }

    [Fact]
    public async Task takes_in_nothing_that_the_log_has_lost_meanwhile()
    {
        await using var store = await TestStore.Create(postgres);
        await using var lease = await Lease.Take(store);
        await store.StartAppender().Append(Request("a", [.. Enumerable.Repeat(new Deposited("a", 1), 5)]), Ct);
        var sealer = lease.Sealer((step, done) =>
        {
            if (step == "seal" && !done)
            {
                store.Execute("delete from mt_events where seq_id = 5").Wait(); // as on a replica that was promoted before it had it
            }
        });

        await Assert.ThrowsAsync<LogFencedException>(() => sealer.SealPage(lease.Epoch, Ct));

        await Lease.SealAll(lease.Sealer(), lease.Epoch);
        Assert.Equal((4, 4), (await store.Value<long>("select size from log_checkpoint"), await store.Value<long>("select size from log_state")));
    }

    /// <summary>Looks at what everybody is shown: never smaller, never another root for a size, always signed.</summary>
    private sealed class Watch(TestStore store)
    {
        private readonly Dictionary<long, MerkleHash> _roots = [];

        public long Size { get; private set; } = -1;

        public async Task Look()
        {
            if (await new TransparencyLog(store.Database).ReadCheckpoint(Ct) is not { } shown)
            {
                return;
            }

            var checkpoint = Checkpoint.Parse(SignedNote.Parse(shown.Note).Text);
            Assert.True(shown.Size >= Size, $"{shown.Size} after {Size}");
            Assert.True(_roots.TryAdd(shown.Size, checkpoint.Root) || _roots[shown.Size] == checkpoint.Root);
            Assert.Equal(checkpoint.Root, await new TiledTree(new TransparencyLog(store.Database)).Root(shown.Size, Ct));
            Size = shown.Size;
        }
    }

    /// <summary>A lease that is held without a daemon, and sealers under it.</summary>
    private sealed class Lease(TestStore store) : IAsyncDisposable
    {
        private readonly NpgsqlDataSource _database = store.Connect();

        public long Epoch { get; } = 7;

        public static async Task<Lease> Take(TestStore store)
        {
            await store.Execute("insert into daemon_lease values ('daemon', 'test', 7, 'infinity')");
            var lease = new Lease(store);
            await new LogKeyring(lease._database, new TransparencyOptions { Folder = store.LogFolder }).Open(Ct);
            return lease;
        }

        public Sealer Sealer(Action<string, bool>? probe = null) => new(
            _database, new TransparencyLog(_database), new LogKeyring(_database, new TransparencyOptions { Folder = store.LogFolder }),
            () => Epoch, TestNode.Quick, Microsoft.Extensions.Logging.Abstractions.NullLogger<Sealer>.Instance)
        {
            Probe = probe ?? ((_, _) => { }),
            Interval = TimeSpan.FromMilliseconds(5),
        };

        public static async Task SealAll(Sealer sealer, long epoch)
        {
            while (await sealer.SealPage(epoch, Ct) > 0)
            {
            }

            await sealer.Publish(epoch, Ct);
        }

        public ValueTask DisposeAsync() => ValueTask.CompletedTask;
    }
}
