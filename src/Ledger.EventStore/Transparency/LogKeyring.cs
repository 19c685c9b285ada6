using Npgsql;

namespace Ledger.EventStore;

/// <summary>Where the log's signing key lies and what the log is called.</summary>
public sealed record TransparencyOptions
{
    /// <summary>The folder of keys that are not placed elsewhere.</summary>
    public required string Folder { get; init; }

    /// <summary>The key's file; null: one named after the log in <see cref="Folder"/>.</summary>
    public string? KeyFile { get; init; }

    /// <summary>The log's origin; null: one made of the log's id.</summary>
    public string? Origin { get; init; }
}

/// <summary>What a log is: known by an id that every copy of its database shares, called by its origin.</summary>
public sealed record LogIdentity(Guid Id, string Origin, string KeyPath)
{
    /// <summary>The last checkpoint that was signed or seen here, kept beside the key: outside of the database.</summary>
    public string CheckpointPath => $"{KeyPath}.checkpoint";
}

/// <summary>
/// The keys of the log. The secret one is a file; the database lists the public ones, and which of them signs. So a node whose
/// file is another's does not sign.
/// </summary>
public sealed class LogKeyring(NpgsqlDataSource database, TransparencyOptions options)
{
    /// <summary>Says which log this is. The first to ask founds it, makes a key unless one is there, and registers it.</summary>
    /// <exception cref="SigningKeyException">The first key can't be made.</exception>
    public async Task<LogIdentity> Open(CancellationToken cancellation = default)
    {
        var (identity, key) = await Read(cancellation) ?? await Found(cancellation);
        if (key is null)
        {
            await MakeFirstKey(identity, cancellation);
        }

        return identity;
    }

    /// <summary>Says which log this is; null when nobody has founded it yet.</summary>
    public async Task<LogIdentity?> Find(CancellationToken cancellation = default) => (await Read(cancellation))?.Identity;

    /// <summary>The key that may sign now.</summary>
    /// <exception cref="SigningKeyException">It is not here.</exception>
    public async Task<INoteSigner> Load(LogIdentity identity, CancellationToken cancellation = default)
    {
        CheckOrigin(identity);
        var registered = await ReadRegistered(cancellation);
        while (!File.Exists(NextPath(identity)))
        {
            try
            {
                return LoadRegistered(identity, registered);
            }
            catch (SigningKeyException)
            {
                var before = registered;
                registered = await ReadRegistered(cancellation);
                if (registered == before && !File.Exists(NextPath(identity)))
                {
                    throw; // else a rotation went by in between
                }
            }
        }

        using var alone = await Lock(identity, cancellation);
        return await LoadAlone(identity, cancellation);
    }

    /// <summary>
    /// Puts a new key in the place of the one that signs. The old one stays listed; its secret is kept beside. Of rotations at
    /// once in one folder, each hands over to the next.
    /// </summary>
    /// <exception cref="SigningKeyException">The key that signs is not here: only who has it may hand over.</exception>
    public async Task<NoteKey> Rotate(CancellationToken cancellation = default)
    {
        var identity = await Open(cancellation);
        CheckOrigin(identity);
        using var alone = await Lock(identity, cancellation);
        var old = (await LoadAlone(identity, cancellation)).Key;
        File.Delete(NextPath(identity)); // of a rotation that did not get through
        var key = SigningKeyFile.Create(NextPath(identity), identity.Origin).Key;
        if (!await Register(key, old, cancellation))
        {
            File.Delete(NextPath(identity)); // nothing was signed with it, nor will be
            throw new SigningKeyException("Somebody else has put another key in this one's place just now.");
        }

        FinishRotation(identity, key.ToString());
        return key;
    }

    /// <summary>The key that may sign, for who holds the lock: no other rotation in this folder is under way.</summary>
    private async Task<SigningKeyFile> LoadAlone(LogIdentity identity, CancellationToken cancellation)
    {
        var registered = await ReadRegistered(cancellation);
        FinishRotation(identity, registered);
        return LoadRegistered(identity, registered);
    }

    /// <summary>
    /// A rotation writes the new key beside, registers it, and then moves it: whatever came in between is finished here, under
    /// the lock. Two that do so at once would move the new key away as if it were the old one.
    /// </summary>
    private static void FinishRotation(LogIdentity identity, string? registered)
    {
        var next = NextPath(identity);
        if (!File.Exists(next) || SigningKeyFile.Load(next).Key.ToString() != registered)
        {
            return;
        }

        if (File.Exists(identity.KeyPath))
        {
            var old = SigningKeyFile.Load(identity.KeyPath).Key;
            if (old.ToString() == registered)
            {
                File.Delete(next); // somebody has copied it to its place
                return;
            }

            File.Move(identity.KeyPath, $"{identity.KeyPath}.{old.IdText}", overwrite: true);
        }

        File.Move(next, identity.KeyPath);
    }

    private static SigningKeyFile LoadRegistered(LogIdentity identity, string? registered)
    {
        var key = SigningKeyFile.Load(identity.KeyPath);
        return key.Key.ToString() == registered ? key
            : throw new SigningKeyException($"The key in '{identity.KeyPath}' is {key.Key}, but the log is signed by {registered}.");
    }

    private void CheckOrigin(LogIdentity identity)
    {
        if (options.Origin is { } origin && origin != identity.Origin)
        {
            throw new SigningKeyException($"The log's origin is '{identity.Origin}', not '{origin}', as LEDGER_LOG_ORIGIN has it. An origin stays.");
        }
    }

    private async Task<string?> ReadRegistered(CancellationToken cancellation) =>
        (await Read(cancellation) ?? throw new SigningKeyException("There is no log yet.")).Key;

    private static string NextPath(LogIdentity identity) => $"{identity.KeyPath}.next";

    /// <summary>
    /// Of nodes that share the folder and start together, one makes the key at a time: else one might register the key that
    /// another, too late to register it itself, is about to remove.
    /// </summary>
    private async Task MakeFirstKey(LogIdentity identity, CancellationToken cancellation)
    {
        using var alone = await Lock(identity, cancellation);
        var made = !File.Exists(identity.KeyPath);
        var key = made ? SigningKeyFile.Create(identity.KeyPath, identity.Origin) : SigningKeyFile.Load(identity.KeyPath);
        if (key.Key.Name != identity.Origin)
        {
            throw new SigningKeyException($"The key in '{identity.KeyPath}' is of '{key.Key.Name}', but the log's origin is '{identity.Origin}'.");
        }

        if (!await Register(key.Key, null, cancellation) && made)
        {
            File.Delete(identity.KeyPath); // another node was first, with a key of its own
        }
    }

    private static async Task<IDisposable> Lock(LogIdentity identity, CancellationToken cancellation)
    {
        try
        {
            Directory.CreateDirectory(Path.GetDirectoryName(identity.KeyPath)!);
            return await DurableFile.Lock($"{identity.KeyPath}.lock", cancellation);
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            throw new SigningKeyException($"The signing key '{identity.KeyPath}' can't be written: {exception.Message}", exception);
        }
    }

    private async Task<bool> Register(NoteKey key, NoteKey? old, CancellationToken cancellation)
    {
        await using var command = database.CreateCommand(
            """
            with moved as (update log_state set key = $1 where name = 'log' and key is not distinct from $2 returning 1),
                 listed as (
                   insert into log_keys (number, key)
                   select coalesce((select max(number) from log_keys), 0) + 1, $1 where exists (select from moved)
                   returning 1
                 )
            select count(*) from listed
            """);
        command.Parameters.Add(new NpgsqlParameter<string> { TypedValue = key.ToString() });
        command.Parameters.Add(new NpgsqlParameter { Value = (object?)old?.ToString() ?? DBNull.Value, NpgsqlDbType = NpgsqlTypes.NpgsqlDbType.Varchar });
        return (long)(await command.ExecuteScalarAsync(cancellation))! == 1;
    }

    private async Task<(LogIdentity Identity, string? Key)> Found(CancellationToken cancellation)
    {
        var id = Guid.NewGuid();
        await using (var command = database.CreateCommand(
            "insert into log_state (name, id, origin, size, root) values ('log', $1, $2, 0, $3) on conflict (name) do nothing"))
        {
            command.Parameters.Add(new NpgsqlParameter<Guid> { TypedValue = id });
            command.Parameters.Add(new NpgsqlParameter<string> { TypedValue = options.Origin ?? $"ledger.local/{Short(id)}" });
            command.Parameters.Add(new NpgsqlParameter<byte[]> { TypedValue = MerkleTree.Empty.ToArray() });
            await command.ExecuteNonQueryAsync(cancellation);
        }

        return (await Read(cancellation))!.Value;
    }

    private async Task<(LogIdentity Identity, string? Key)?> Read(CancellationToken cancellation)
    {
        await using var command = database.CreateCommand("select id, origin, key from log_state where name = 'log'");
        await using var reader = await command.ExecuteReaderAsync(cancellation);
        if (!await reader.ReadAsync(cancellation))
        {
            return null;
        }

        var id = reader.GetGuid(0);
        var path = options.KeyFile ?? Path.Combine(options.Folder, $"{Short(id)}.key");
        return (new LogIdentity(id, reader.GetString(1), Path.GetFullPath(path)), reader.IsDBNull(2) ? null : reader.GetString(2));
    }

    private static string Short(Guid id) => id.ToString("N")[..12];
}
