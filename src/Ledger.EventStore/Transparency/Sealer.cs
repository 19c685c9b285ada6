using System.Diagnostics;
using System.Diagnostics.Metrics;
using System.Security.Cryptography;
using System.Text;
using Microsoft.Extensions.Logging;
using Npgsql;
using NpgsqlTypes;

namespace Ledger.EventStore;

/// <summary>
/// Makes every event a leaf of the transparency log, and signs checkpoints. Every node has one; that of the node that keeps the
/// views works, under the same lease. A page of events becomes leaves, salts and tiles in one statement, which moves the log's
/// size from where this began: of two nodes that both think they lead, one gets through.
/// </summary>
public sealed partial class Sealer : IAsyncDisposable
{
    /// <summary>Events sealed in one transaction.</summary>
    public const int PageEvents = 8_192;

    /// <summary>The least time between two checkpoints, and between two pages that are not full.</summary>
    public static readonly TimeSpan PublishInterval = TimeSpan.FromSeconds(1);

    private const int MaxKnownTenants = 10_000;

    private readonly NpgsqlDataSource _database;
    private readonly TransparencyLog _log;
    private readonly TiledTree _tiles;
    private readonly LogKeyring _keyring;
    private readonly Func<long> _leading;
    private readonly PagesToSeal _pages;
    private readonly EventStoreOptions _options;
    private readonly ILogger<Sealer> _logger;
    private readonly CancellationTokenSource _stopping = new();
    private readonly SemaphoreSlim _wake = new(0, 1);
    private readonly Dictionary<string, byte[]> _pseudonyms = [];
    private readonly byte[] _salts = new byte[PageEvents * LeafEnvelope.SaltBytes];
    private readonly ByteBuffer _scratch = new();
    private readonly ByteBuffer _leaf = new();
    private Task _loop = Task.CompletedTask;
    private LogIdentity? _identity;
    private INoteSigner? _signer;
    private GrowingTree? _tree;
    private MerkleHash _root;
    private long _published = -1;
    private bool _checked;
    private long _epoch;
    private long? _lastPublished;
    private long _noted = -1;
    private string? _refusal;
    private LogStatus _status = LogStatus.None;

    /// <summary>A sealer that does nothing until <see cref="Start"/>, woken by the daemon.</summary>
    public Sealer(
        NpgsqlDataSource database, TransparencyLog log, LogKeyring keyring, Daemon daemon, EventStoreOptions options, ILogger<Sealer> logger)
        : this(database, log, keyring, () => daemon.Epoch, options, logger, daemon.ToSeal)
    {
        daemon.Appended += Wake;
        daemon.LogSeen += Learn;
    }

    internal Sealer(
        NpgsqlDataSource database, TransparencyLog log, LogKeyring keyring, Func<long> leading, EventStoreOptions options, ILogger<Sealer> logger, PagesToSeal? pages = null)
    {
        (_database, _log, _keyring, _leading, _options, _logger, _pages) = (database, log, keyring, leading, options, logger, pages ?? new PagesToSeal());
        _tiles = new TiledTree(log);
        Telemetry.Meter.CreateObservableGauge(
            "ledger.checkpoint.age", () => _status.UncoveredSeconds, "s", "Age of the oldest event that no checkpoint covers");
        Telemetry.Meter.CreateObservableGauge(
            "ledger.checkpoint.size", () => _status.Published, "{event}", "Events that the newest checkpoint covers");
        Telemetry.Meter.CreateObservableGauge(
            "ledger.checkpoint.refused", () => Refusal is null ? 0 : 1, "{refusal}", "1 while no checkpoint is signed because something is wrong");
    }

    /// <summary>Why no checkpoint is signed; null when nothing is wrong.</summary>
    public string? Refusal => Volatile.Read(ref _refusal) ?? _status.Refusal;

    /// <summary>Told before (false) and after (true) each step whose failure must do no harm; what it throws is that failure.</summary>
    internal Action<string, bool> Probe { get; init; } = (_, _) => { };

    /// <summary>The time between checkpoints, shorter in tests.</summary>
    internal TimeSpan Interval { get; init; } = PublishInterval;

    /// <summary>Starts sealing whenever this node leads.</summary>
    public void Start()
    {
        _loop = Task.Run(SealWhileLeading);
        Wake();
    }

    /// <summary>Says that there may be something to do.</summary>
    public void Wake()
    {
        try
        {
            if (_wake.CurrentCount == 0)
            {
                _wake.Release();
            }
        }
        catch (SemaphoreFullException)
        {
            // Someone else has done so just now.
        }
    }

    /// <summary>Stops at the end of the step under way.</summary>
    public async ValueTask DisposeAsync()
    {
        await _stopping.CancelAsync();
        await _loop;
    }

    private void Learn(LogStatus status)
    {
        _status = status;
        if (status.Head > status.Sealed || status.Sealed > status.Published || status.Refusal is not null || _refusal is not null
            || (_leading() != 0 ? _epoch != _leading() : status.Published != _noted))
        {
            Wake();
        }
    }

    private async Task SealWhileLeading()
    {
        while (!_stopping.IsCancellationRequested)
        {
            try
            {
                await _wake.WaitAsync(_stopping.Token);
                _identity ??= await _keyring.Open(_stopping.Token);
                if (_leading() is not 0 and var epoch)
                {
                    await CatchUp(epoch);
                }
                else
                {
                    Forget();
                    await NoteWhatOthersPublished();
                }
            }
            catch (OperationCanceledException) when (_stopping.IsCancellationRequested)
            {
                return;
            }
            catch (LogFencedException)
            {
                Forget(); // another node has taken over; the next beat tells
            }
            catch (RefusedToSignException refused)
            {
                Forget();
                await Refuse(refused);
            }
            catch (SigningKeyException missing)
            {
                Forget();
                await Refuse(new RefusedToSignException(missing.Message)); // the first key can't be made
            }
            catch (Exception exception) when (exception is OperationCanceledException || DatabaseErrors.IsUnavailable(exception))
            {
                Forget();
                LogAway(exception);
                await Pause(TimeSpan.FromMilliseconds(200));
                Wake();
            }
            catch (Exception exception)
            {
                Forget();
                LogBug(exception);
                _database.Clear();
                await Pause(_options.HeartbeatInterval);
                Wake();
            }
        }
    }

    /// <summary>
    /// Seals page after page up to the head, and publishes on the way. Under a load of small commits it works once an interval,
    /// so that what a checkpoint costs does not grow with their number; after a pause it works at once. Pages that the daemon has
    /// copied it seals from memory, as soon as they are as many as it seals at once.
    /// </summary>
    private async Task CatchUp(long epoch)
    {
        if (_epoch != epoch)
        {
            Forget();
            _epoch = epoch;
        }

        await WaitUntilDue();
        while (!_stopping.IsCancellationRequested && _leading() == epoch)
        {
            var changed = _pages.Changed;
            _tree ??= await Load(_stopping.Token);
            var page = _pages.Find(_tree.Size);
            var waits = page is null && _pages.MayCome(_tree.Size) && !IsDue(2 * Interval);
            var events = waits ? 0 : await SealPage(epoch, page, _stopping.Token);
            if (IsDue(Interval) && (_published != _tree.Size || !_checked))
            {
                await Publish(epoch, _stopping.Token);
            }

            if (waits)
            {
                await Task.WhenAny(changed, Task.Delay(Interval, _stopping.Token));
            }
            else if (events < PageEvents)
            {
                if (page is null && _published == _tree.Size && _checked)
                {
                    return;
                }

                await WaitUntilDue();
            }
        }
    }

    /// <summary>Seals the next events, at most a page; returns how many.</summary>
    /// <exception cref="LogFencedException">Another node seals.</exception>
    internal Task<int> SealPage(long epoch, CancellationToken cancellation) => SealPage(epoch, null, cancellation);

    private async Task<int> SealPage(long epoch, PageRows? page, CancellationToken cancellation)
    {
        var tree = _tree ?? await Load(cancellation);
        _tree = null; // until this has gone well
        var started = Stopwatch.GetTimestamp();
        var (from, rootBefore) = (tree.Size, _root);
        var (made, last) = (new Dictionary<string, byte[]>(), Guid.Empty);
        RandomNumberGenerator.Fill(_salts);
        Probe("read", false);
        await using (var connection = page is null ? await _database.OpenConnectionAsync(cancellation) : null)
        {
            await using var read = page is null ? await StoredRow.Read(connection!, from, PageEvents, cancellation) : null;
            var rows = read ?? new StoredRow(page!.Bytes);
            var commitments = new byte[LeafEnvelope.CommitmentsBytes];
            byte[] tenant = [], pseudonym = [];
            while (true)
            {
                if (!await rows.Next(cancellation))
                {
                    if (page is null || (page = _pages.Find(tree.Size)) is null)
                    {
                        break;
                    }

                    rows = new StoredRow(page.Bytes);
                    continue;
                }

                if (rows.PositionNumber <= tree.Size)
                {
                    continue; // of a page, the part that is sealed
                }

                if (tree.Size - from == PageEvents)
                {
                    break; // of a page, the part that is too much
                }

                if (rows.PositionNumber != tree.Size + 1)
                {
                    throw new RefusedToSignException($"The event at position {tree.Size + 1} is missing.");
                }

                if (pseudonym.Length == 0 || !rows.TenantId.SequenceEqual(tenant))
                {
                    tenant = rows.TenantId.ToArray();
                    pseudonym = await PseudonymOf(Encoding.UTF8.GetString(tenant), made, cancellation);
                }

                LeafEnvelope.Commit(rows, _salts.AsSpan((int)(tree.Size - from) * LeafEnvelope.SaltBytes, LeafEnvelope.SaltBytes), _scratch, commitments);
                _leaf.Clear();
                _leaf.Write((byte)0); // room for what the tree puts before a leaf
                LeafEnvelope.Write(rows, pseudonym, commitments, _leaf);
                tree.Append(MerkleTree.LeafAfterRoom(_leaf.Written));
                last = new Guid(rows.Id, bigEndian: true);
            }
        }

        Probe("read", true);
        var events = (int)(tree.Size - from);
        if (events > 0)
        {
            var root = tree.Root();
            Probe("seal", false);
            await Write(tree, root, from, rootBefore, last, made, epoch, cancellation);
            Probe("seal", true);
            _root = root;
            tree.Settle();
            foreach (var (name, bytes) in made)
            {
                _pseudonyms[name] = bytes;
            }

            Telemetry.SealedEvents.Add(events);
            Telemetry.SealTime.Record(Stopwatch.GetElapsedTime(started).TotalSeconds);
        }

        _tree = tree;
        return events;
    }

    /// <summary>
    /// Everything of a page in one statement, which waits for the disk: salts are random, so a page that was signed for and then
    /// lost could not be made again. Nothing of it, when the last event of the page is not in the log any more: a server that was
    /// promoted without the last commits has another there, or none.
    /// </summary>
    private async Task Write(
        GrowingTree tree, MerkleHash root, long from, MerkleHash rootBefore, Guid last, Dictionary<string, byte[]> tenants, long epoch, CancellationToken cancellation)
    {
        var tiles = tree.Grown().ToArray();
        var bundles = new List<(long Bundle, byte[] Salts)>();
        for (var index = from; index < tree.Size;)
        {
            var end = Math.Min(tree.Size, (index / TilePath.Width * TilePath.Width) + TilePath.Width);
            bundles.Add((index / TilePath.Width, _salts.AsSpan((int)(index - from) * LeafEnvelope.SaltBytes, (int)(end - index) * LeafEnvelope.SaltBytes).ToArray()));
            index = end;
        }

        await using var command = _database.CreateCommand(
            """
            with moved as (
              update log_state set size = $1, root = $2
              where name = 'log' and size = $3 and root = $4 and exists (select from daemon_lease where name = 'daemon' and epoch = $5)
                and exists (select from mt_events where seq_id = $1 and id = $13)
              returning 1
            ),
            tiles as (
              insert into log_tiles (level, index, hashes)
              select t.level, t.index, t.hashes from unnest($6, $7, $8) t (level, index, hashes) where exists (select from moved)
              on conflict (level, index) do update set hashes = excluded.hashes
            ),
            salts as (
              insert into log_salts (bundle, salts)
              select s.bundle, s.salts from unnest($9, $10) s (bundle, salts) where exists (select from moved)
              on conflict (bundle) do update set salts = log_salts.salts || excluded.salts
            ),
            tenants as (
              insert into log_tenants (tenant_id, pseudonym)
              select t.tenant_id, t.pseudonym from unnest($11, $12) t (tenant_id, pseudonym) where exists (select from moved)
            )
            select count(*), set_config('synchronous_commit', case current_setting('synchronous_commit') when 'off' then 'on' else current_setting('synchronous_commit') end, true)
            from moved
            """);
        Add(command, tree.Size);
        Add(command, root.ToArray());
        Add(command, from);
        Add(command, rootBefore.ToArray());
        Add(command, epoch);
        Add(command, Array.ConvertAll(tiles, t => t.Id.Level));
        Add(command, Array.ConvertAll(tiles, t => t.Id.Index));
        Add(command, Array.ConvertAll(tiles, t => t.Hashes));
        Add(command, bundles.Select(b => b.Bundle).ToArray());
        Add(command, bundles.Select(b => b.Salts).ToArray());
        Add(command, tenants.Keys.ToArray());
        Add(command, tenants.Values.ToArray());
        Add(command, last);
        if ((long)(await command.ExecuteScalarAsync(cancellation))! != 1)
        {
            throw new LogFencedException();
        }
    }

    /// <summary>
    /// Signs and shows the tree as it stands, if all that this node knows of its past agrees with it: reserve the size and its
    /// root in the database, sign, keep the checkpoint outside of the database, show it. A step that is done twice, by this
    /// node or another, does the same again; one that is missed is made up for by the next.
    /// </summary>
    /// <exception cref="RefusedToSignException">The tree contradicts what was signed before, or the key is not the log's.</exception>
    /// <exception cref="LogFencedException">Another node publishes.</exception>
    internal async Task Publish(long epoch, CancellationToken cancellation)
    {
        var identity = _identity ??= await _keyring.Open(cancellation);
        var signer = await Signer(identity, cancellation);
        var (size, root) = (_tree!.Size, _root);
        if (await _tiles.Root(size, cancellation) != root)
        {
            throw new RefusedToSignException($"The tiles do not give the root of the {size} events that were sealed.");
        }

        var shown = await _log.ReadCheckpoint(cancellation);
        if (shown is not null)
        {
            await CheckExtends(size, new Checkpoint(identity.Origin, shown.Size, shown.Root), "that the database shows", cancellation);
        }

        await CheckFile(identity, size, cancellation);
        _checked = true;
        var current = shown?.Size == size && Parse(shown.Note).Signatures.Any(s => s.KeyId == signer.Key.Id && s.Name == signer.Key.Name);
        if (!current)
        {
            Probe("reserve", false);
            await Reserve(size, root, signer.Key, epoch, cancellation);
            Probe("reserve", true);
            var text = new Checkpoint(identity.Origin, size, root).ToString();
            Probe("sign", false);
            var signature = await signer.Sign(Encoding.UTF8.GetBytes(text), cancellation);
            Probe("sign", true);
            var note = new SignedNote(text, [new NoteSignature(signer.Key.Name, signer.Key.Id, signature)]).ToBytes();
            await Keep(identity, note, size, cancellation);
            Probe("show", false);
            await Show(size, root, note, signer.Key, epoch, cancellation);
            Probe("show", true);
        }
        else if (_noted != size)
        {
            await Keep(identity, shown!.Note, size, cancellation);
        }

        _published = size;
        _lastPublished = Stopwatch.GetTimestamp();
        if (Interlocked.Exchange(ref _refusal, null) is not null || _status.Refusal is not null)
        {
            await SaveRefusal(null, epoch, cancellation);
            _status = _status with { Refusal = null };
        }
    }

    private async Task Reserve(long size, MerkleHash root, NoteKey key, long epoch, CancellationToken cancellation)
    {
        await using (var command = _database.CreateCommand(
            """
            update log_state set reserved_size = $1, reserved_root = $2
            where name = 'log' and key = $3 and size >= $1
              and (reserved_size is null or reserved_size < $1 or (reserved_size = $1 and reserved_root = $2))
              and exists (select from daemon_lease where name = 'daemon' and epoch = $4)
            """))
        {
            Add(command, size);
            Add(command, root.ToArray());
            Add(command, key.ToString());
            Add(command, epoch);
            if (await command.ExecuteNonQueryAsync(cancellation) == 1)
            {
                return;
            }
        }

        await using var why = _database.CreateCommand("select size, reserved_size, reserved_root from log_state where name = 'log'");
        await using var reader = await why.ExecuteReaderAsync(cancellation);
        if (await reader.ReadAsync(cancellation) && !reader.IsDBNull(1) && reader.GetInt64(0) == size
            && (reader.GetInt64(1) > size || (reader.GetInt64(1) == size && new MerkleHash(reader.GetFieldValue<byte[]>(2)) != root)))
        {
            throw new RefusedToSignException($"The log has {size} events, but was promised to be signed with {reader.GetInt64(1)}, or with another root.");
        }

        throw new LogFencedException();
    }

    private async Task Show(long size, MerkleHash root, byte[] note, NoteKey key, long epoch, CancellationToken cancellation)
    {
        await using var command = _database.CreateCommand(
            """
            insert into log_checkpoint (name, size, root, note, published_at)
            select s.name, $1, $2, $3, clock_timestamp() from log_state s
            where s.name = 'log' and s.reserved_size = $1 and s.reserved_root = $2 and s.key = $4
              and exists (select from daemon_lease where name = 'daemon' and epoch = $5)
            on conflict (name) do update set size = excluded.size, root = excluded.root, note = excluded.note, published_at = excluded.published_at
            where log_checkpoint.size < excluded.size or (log_checkpoint.size = excluded.size and log_checkpoint.root = excluded.root)
            """);
        Add(command, size);
        Add(command, root.ToArray());
        Add(command, note);
        Add(command, key.ToString());
        Add(command, epoch);
        if (await command.ExecuteNonQueryAsync(cancellation) != 1)
        {
            throw new LogFencedException();
        }
    }

    /// <summary>Keeps what another node has shown, so that this one knows of it when its time comes.</summary>
    private async Task NoteWhatOthersPublished()
    {
        if (_status.Published == _noted || await _log.ReadCheckpoint(_stopping.Token) is not { } shown || shown.Size == _noted)
        {
            return;
        }

        var identity = _identity!;
        try
        {
            Parse(shown.Note).Verify(await Keys(_stopping.Token));
        }
        catch (InvalidNoteException invalid)
        {
            throw new RefusedToSignException($"The checkpoint that the database shows can't be trusted: {invalid.Message}");
        }

        var kept = await ReadKept(identity, _stopping.Token);
        if (kept?.Size > shown.Size)
        {
            return; // the node that leads keeps one here before it shows it
        }

        if (kept is not null)
        {
            await CheckExtends(shown.Size, kept, $"kept in '{identity.CheckpointPath}'", _stopping.Token);
        }

        if (await KeepUnlessLarger(identity, shown.Note, shown.Size, _stopping.Token)) // it may have come in between
        {
            Volatile.Write(ref _refusal, null);
        }
    }

    /// <summary>Compares the log with the last checkpoint that was signed or seen here.</summary>
    private async Task CheckFile(LogIdentity identity, long size, CancellationToken cancellation)
    {
        if (await ReadKept(identity, cancellation) is { } kept)
        {
            await CheckExtends(size, kept, $"kept in '{identity.CheckpointPath}'", cancellation);
        }
    }

    private async Task<Checkpoint?> ReadKept(LogIdentity identity, CancellationToken cancellation)
    {
        if (!File.Exists(identity.CheckpointPath))
        {
            return null;
        }

        try
        {
            var note = SignedNote.Parse(await File.ReadAllBytesAsync(identity.CheckpointPath, cancellation));
            var kept = Checkpoint.Parse(note.Text);
            var keys = await Keys(cancellation);
            note.Verify(_signer is null ? keys : keys.Append(_signer.Key).Distinct());
            return kept.Origin == identity.Origin ? kept
                : throw new RefusedToSignException($"The checkpoint kept in '{identity.CheckpointPath}' is of the log '{kept.Origin}'.");
        }
        catch (InvalidNoteException invalid)
        {
            throw new RefusedToSignException($"The checkpoint kept in '{identity.CheckpointPath}' can't be trusted: {invalid.Message}");
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            throw new RefusedToSignException($"The checkpoint kept in '{identity.CheckpointPath}' can't be read: {exception.Message}");
        }
    }

    private async Task CheckExtends(long size, Checkpoint known, string where, CancellationToken cancellation)
    {
        if (known.Size > size)
        {
            throw new RefusedToSignException(
                $"The log has {size} events, but the checkpoint {where} covers {known.Size}: the database is an older copy, or events were taken away.");
        }

        if (await _tiles.Root(known.Size, cancellation) != known.Root)
        {
            throw new RefusedToSignException($"The first {known.Size} events have another root than the checkpoint {where}: they were changed.");
        }
    }

    /// <summary>Keeps a checkpoint in the place of a smaller one. Several nodes of one machine may share the file.</summary>
    /// <exception cref="RefusedToSignException">A larger one is kept there, or it can't be written.</exception>
    private async Task Keep(LogIdentity identity, byte[] note, long size, CancellationToken cancellation)
    {
        if (!await KeepUnlessLarger(identity, note, size, cancellation))
        {
            throw new RefusedToSignException($"The checkpoint kept in '{identity.CheckpointPath}' covers more events than the {size} to be signed.");
        }
    }

    private async Task<bool> KeepUnlessLarger(LogIdentity identity, byte[] note, long size, CancellationToken cancellation)
    {
        Probe("keep", false);
        try
        {
            Directory.CreateDirectory(Path.GetDirectoryName(identity.CheckpointPath)!);
            using (await DurableFile.Lock($"{identity.CheckpointPath}.lock", cancellation))
            {
                if (await ReadKept(identity, cancellation) is { } kept && kept.Size > size)
                {
                    return false;
                }

                DurableFile.Write(
                    identity.CheckpointPath, note, mayReplace: true,
                    UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.GroupRead | UnixFileMode.OtherRead);
            }
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            throw new RefusedToSignException($"The checkpoint can't be kept in '{identity.CheckpointPath}': {exception.Message}");
        }

        Probe("keep", true);
        _noted = size;
        return true;
    }

    private async Task<INoteSigner> Signer(LogIdentity identity, CancellationToken cancellation)
    {
        try
        {
            // Looked up each time: somebody may have put another key in its place.
            return _signer = await _keyring.Load(identity, cancellation);
        }
        catch (SigningKeyException exception)
        {
            throw new RefusedToSignException(exception.Message);
        }
    }

    private async Task<IEnumerable<NoteKey>> Keys(CancellationToken cancellation)
    {
        var keys = new List<NoteKey>();
        foreach (var text in await _log.ReadKeys(cancellation))
        {
            keys.Add(NoteKey.TryParse(text, out var key) ? key : throw new RefusedToSignException($"'{text}' is listed as a key, but is none."));
        }

        return keys;
    }

    private static SignedNote Parse(byte[] note)
    {
        try
        {
            return SignedNote.Parse(note);
        }
        catch (InvalidNoteException invalid)
        {
            throw new RefusedToSignException($"The checkpoint that the database shows is none: {invalid.Message}");
        }
    }

    /// <summary>Where the log stands in the database.</summary>
    private async Task<GrowingTree> Load(CancellationToken cancellation)
    {
        long size;
        MerkleHash root;
        await using (var command = _database.CreateCommand("select size, root from log_state where name = 'log'"))
        {
            await using var reader = await command.ExecuteReaderAsync(cancellation);
            if (!await reader.ReadAsync(cancellation))
            {
                throw new RefusedToSignException("The log's state is gone.");
            }

            (size, root) = (reader.GetInt64(0), new MerkleHash(reader.GetFieldValue<byte[]>(1)));
        }

        try
        {
            var edge = GrowingTree.Edge(size).Select(t => t.Id).ToArray();
            var tree = GrowingTree.From(size, await _log.ReadTiles(edge, cancellation));
            _root = root;
            return tree.Root() == root ? tree : throw new RefusedToSignException($"The tiles do not give the root of the {size} events that were sealed.");
        }
        catch (MissingTileException missing)
        {
            throw new RefusedToSignException(missing.Message);
        }
    }

    private async Task<byte[]> PseudonymOf(string tenant, Dictionary<string, byte[]> made, CancellationToken cancellation)
    {
        if (_pseudonyms.TryGetValue(tenant, out var known) || made.TryGetValue(tenant, out known))
        {
            return known;
        }

        if (_pseudonyms.Count >= MaxKnownTenants)
        {
            _pseudonyms.Clear();
        }

        await using var command = _database.CreateCommand("select pseudonym from log_tenants where tenant_id = $1");
        Add(command, tenant);
        return await command.ExecuteScalarAsync(cancellation) is byte[] stored
            ? _pseudonyms[tenant] = stored
            : made[tenant] = RandomNumberGenerator.GetBytes(LeafEnvelope.PseudonymBytes);
    }

    /// <summary>What this node remembers of the log is looked up again.</summary>
    private void Forget()
    {
        (_tree, _checked, _published, _epoch) = (null, false, -1, 0);
        _pseudonyms.Clear();
        _pages.Clear();
    }

    private async Task Refuse(RefusedToSignException refused)
    {
        if (Interlocked.Exchange(ref _refusal, refused.Message) != refused.Message)
        {
            LogRefused(refused.Message);
        }

        _lastPublished = Stopwatch.GetTimestamp(); // not again before the interval is over
        try
        {
            await SaveRefusal(refused.Message, _leading(), _stopping.Token);
        }
        catch (Exception exception) when (exception is OperationCanceledException || DatabaseErrors.IsUnavailable(exception))
        {
            LogAway(exception); // it is refused again
        }
    }

    private async Task SaveRefusal(string? refusal, long epoch, CancellationToken cancellation)
    {
        await using var command = _database.CreateCommand(
            """
            update log_state set refusal = $1
            where name = 'log' and refusal is distinct from $1 and exists (select from daemon_lease where name = 'daemon' and epoch = $2)
            """);
        command.Parameters.Add(new NpgsqlParameter { Value = (object?)refusal ?? DBNull.Value, NpgsqlDbType = NpgsqlDbType.Varchar });
        Add(command, epoch);
        await command.ExecuteNonQueryAsync(cancellation);
    }

    private bool IsDue(TimeSpan after) => _lastPublished is not { } last || Stopwatch.GetElapsedTime(last) >= after;

    /// <summary>Until it is time for the next checkpoint, or the daemon has left so much that it should not have to keep it.</summary>
    private async Task WaitUntilDue()
    {
        if (_lastPublished is { } last && Interval - Stopwatch.GetElapsedTime(last) is { Ticks: > 0 } rest)
        {
            using var over = CancellationTokenSource.CreateLinkedTokenSource(_stopping.Token);
            await Task.WhenAny(Task.Delay(rest, over.Token), _pages.Hold(_tree?.Size ?? long.MaxValue - 1, PageEvents, over.Token));
            await over.CancelAsync();
            _stopping.Token.ThrowIfCancellationRequested();
        }
    }

    private Task Pause(TimeSpan time) =>
        Task.Delay(time, _stopping.Token).ContinueWith(_ => { }, CancellationToken.None, TaskContinuationOptions.None, TaskScheduler.Default);

    private static void Add<T>(NpgsqlCommand command, T value) => command.Parameters.Add(new NpgsqlParameter<T> { TypedValue = value });

    [LoggerMessage(LogLevel.Warning, "The sealer waits for the database")]
    private partial void LogAway(Exception exception);

    [LoggerMessage(LogLevel.Error, "No checkpoint is signed: {Reason}")]
    private partial void LogRefused(string reason);

    [LoggerMessage(LogLevel.Error, "The sealer failed and tries again")]
    private partial void LogBug(Exception exception);
}

/// <summary>What a heartbeat says of the log.</summary>
internal sealed record LogStatus(long Head, long Sealed, long Published, double UncoveredSeconds, string? Refusal)
{
    public static readonly LogStatus None = new(0, 0, -1, 0, null);
}

/// <summary>Signing would contradict what was signed before, or what this node may do.</summary>
internal sealed class RefusedToSignException(string message) : Exception(message);

/// <summary>This node does not lead any more, or the log stands elsewhere than it thought.</summary>
internal sealed class LogFencedException() : Exception("Another node seals the log.");
