using System.Collections.Concurrent;
using System.Text;
using System.Text.Json;

namespace Ledger.EventStore;

/// <summary>The first thing that is wrong with a log; the position is null where it is not about one event.</summary>
public sealed record LogFinding(long? Position, string What);

/// <summary>What verifying came to. Without a finding, all that was asked for holds.</summary>
/// <param name="Finding">What is wrong first; null when nothing is.</param>
/// <param name="Events">Events that were compared with their leaves.</param>
/// <param name="Covered">How many of them a signed checkpoint covers.</param>
/// <param name="Erased">How many of them were erased, so that only what is left of them could be compared.</param>
public sealed record LogVerdict(LogFinding? Finding, long Events, long Covered, long Erased);

/// <summary>
/// Verifies a copy of the log: each leaf is computed anew from its event, each tile from the one below, the root from the tiles;
/// the checkpoint must be signed over it, and earlier checkpoints must be of its beginnings. Trusts nothing but the keys given.
/// </summary>
public sealed class LogVerifier(IVerifiedLog log, IReadOnlyList<NoteKey> keys)
{
    /// <summary>Events that are read in one go; each processor works on one such piece at a time.</summary>
    public const int PieceEvents = 65_536;

    private readonly ConcurrentDictionary<string, byte[]> _pseudonyms = [];
    private long _verified;
    private long _erased;

    /// <summary>Events that were compared so far.</summary>
    public long Verified => Volatile.Read(ref _verified);

    /// <summary>Verifies everything. <paramref name="earlier"/> are checkpoints that were kept, with what each is called.</summary>
    public async Task<LogVerdict> Verify(IReadOnlyList<(string Name, byte[] Note)> earlier, CancellationToken cancellation = default)
    {
        long covered = 0;
        LogFinding? finding;
        try
        {
            var claims = await log.ReadClaims(cancellation);
            var checkpoints = earlier.Select(e => (e.Name, Checkpoint: Read(e.Name, e.Note))).ToList();
            if (claims.Shown is { } shown)
            {
                var read = Read("the checkpoint that is shown", shown.Note);
                if (read.Size != shown.Size || read.Root != shown.Root)
                {
                    throw Wrong("The checkpoint that is shown is of another size or root than is noted beside it.");
                }

                checkpoints.Add(("the checkpoint that is shown", read));
                covered = read.Size;
            }

            finding = await VerifyEvents(claims, cancellation);
            foreach (var (name, checkpoint) in checkpoints.OrderBy(c => c.Checkpoint.Size))
            {
                // That events are missing says more than that their number is another one.
                var short_ = Math.Min(claims.Size, claims.Head);
                if (checkpoint.Size > short_ && (finding?.Position ?? long.MaxValue) > short_)
                {
                    throw Wrong($"The log ends at position {short_}, but {name} covers {checkpoint.Size} events.", short_ + 1);
                }
            }

            if (finding is null && Verified != claims.Size)
            {
                throw Wrong($"{claims.Size} events are said to be sealed, but only {Verified} could be compared."); // a size that is no number of events
            }

            if (finding is null)
            {
                await VerifyUpperTiles(claims, cancellation);
                foreach (var (name, checkpoint) in checkpoints)
                {
                    if (await new TiledTree(log).Root(checkpoint.Size, cancellation) != checkpoint.Root)
                    {
                        throw Wrong($"The first {checkpoint.Size} events have another root than {name}.");
                    }
                }

                finding = await log.FindFault(cancellation) is { } fault ? new LogFinding(null, fault) : null;
            }
        }
        catch (WrongLogException wrong)
        {
            finding = wrong.Finding;
        }
        catch (MissingTileException missing)
        {
            finding = new LogFinding(null, missing.Message);
        }
        catch (InvalidDataException invalid)
        {
            finding = new LogFinding(null, invalid.Message);
        }

        return new LogVerdict(finding, Verified, covered, Volatile.Read(ref _erased));
    }

    private Checkpoint Read(string name, byte[] bytes)
    {
        try
        {
            var note = SignedNote.Parse(bytes);
            var good = note.Verify(keys);
            var checkpoint = Checkpoint.Parse(note.Text);
            return good.Any(s => s.Name == checkpoint.Origin) ? checkpoint : throw new InvalidNoteException("It is not signed by the log it is of.");
        }
        catch (InvalidNoteException invalid)
        {
            throw Wrong($"{char.ToUpperInvariant(name[0])}{name[1..]} can't be trusted: {invalid.Message}");
        }
    }

    /// <summary>Compares every event with its leaf, piece by piece, a few at a time; returns what is wrong first.</summary>
    private async Task<LogFinding?> VerifyEvents(LogClaims claims, CancellationToken cancellation)
    {
        var pieces = (Math.Max(claims.Size, claims.Head) + PieceEvents - 1) / PieceEvents;
        var (next, first) = (0L, long.MaxValue);
        var findings = new ConcurrentDictionary<long, LogFinding>();
        await Task.WhenAll(Enumerable.Range(0, Environment.ProcessorCount).Select(_ => Task.Run(
            async () =>
            {
                for (long piece; (piece = Interlocked.Increment(ref next) - 1) < pieces && piece < Volatile.Read(ref first);)
                {
                    if (await VerifyPiece(claims, piece * PieceEvents, cancellation) is { } finding)
                    {
                        findings[piece] = finding;
                        long seen;
                        while (piece < (seen = Volatile.Read(ref first)) && Interlocked.CompareExchange(ref first, piece, seen) != seen)
                        {
                        }
                    }
                }
            }, cancellation)));
        return findings.IsEmpty ? null : findings[findings.Keys.Min()];
    }

    private async Task<LogFinding?> VerifyPiece(LogClaims claims, long after, CancellationToken cancellation)
    {
        var end = Math.Min(after + PieceEvents, Math.Max(claims.Size, claims.Head));
        var bundles = (int)((end - after + TilePath.Width - 1) / TilePath.Width);
        var secrets = await log.ReadSecrets(after / TilePath.Width, bundles, cancellation);
        var tiles = await log.ReadTiles([.. Enumerable.Range(0, bundles).Select(i => new TileId(0, (after / TilePath.Width) + i))], cancellation);
        await using var rows = new StoredRow(await log.OpenEvents(after, end - after, cancellation));
        var (entry, scratch, commitments) = (new ByteBuffer(), new ByteBuffer(), new byte[LeafEnvelope.CommitmentsBytes]);
        byte[] tenant = [], pseudonym = [];
        LogFinding? finding = null;
        var position = after;
        while (await Next())
        {
            if (finding is not null)
            {
                continue; // a COPY is read to its end
            }

            position++;
            if (rows.PositionNumber != position)
            {
                finding = Missing(position);
                continue;
            }

            if (rows.IsArchived || !rows.HasTenantId || !rows.HasStreamId)
            {
                finding = new LogFinding(position, rows.IsArchived ? "The event is marked as archived, which the ledger never does." : "The event has no tenant or no stream.");
                continue;
            }

            if (position > claims.Size)
            {
                continue; // stored, and not sealed yet
            }

            if (pseudonym.Length == 0 || !rows.TenantId.SequenceEqual(tenant))
            {
                tenant = rows.TenantId.ToArray();
                var name = Encoding.UTF8.GetString(tenant);
                if (!_pseudonyms.TryGetValue(name, out var known))
                {
                    known = await log.ReadPseudonym(name, cancellation);
                    if (known is null)
                    {
                        finding = new LogFinding(position, $"The event belongs to the tenant '{name}', which the log does not know.");
                        continue;
                    }

                    _pseudonyms[name] = known;
                }

                pseudonym = known;
            }

            finding = VerifyEvent(rows, position, pseudonym, secrets, tiles, entry, scratch, commitments);
            Interlocked.Increment(ref _verified);
        }

        if (finding is null && position < end)
        {
            finding = Missing(position + 1);
        }

        return finding;

        async ValueTask<bool> Next()
        {
            try
            {
                return await rows.Next(cancellation);
            }
            catch (NotAnEventException unreadable)
            {
                finding ??= new LogFinding(unreadable.Position, unreadable.Message);
                return false;
            }
        }
    }

    private LogFinding? VerifyEvent(
        StoredRow row, long position, byte[] pseudonym, LogSecrets secrets, IReadOnlyDictionary<TileId, byte[]> tiles, ByteBuffer entry, ByteBuffer scratch, byte[] commitments)
    {
        var (bundle, place) = ((position - 1) / TilePath.Width, (int)((position - 1) % TilePath.Width));
        if (!secrets.Salts.TryGetValue(bundle, out var salts) || salts.Length < (place + 1) * LeafEnvelope.SaltBytes)
        {
            return new LogFinding(position, "The event has no salt.");
        }

        if (!tiles.TryGetValue(new TileId(0, bundle), out var hashes) || hashes.Length < (place + 1) * MerkleHash.Bytes)
        {
            return new LogFinding(position, $"The tile {TilePath.OfHashes(0, bundle, TilePath.Width)} does not reach as far as it must.");
        }

        var salt = salts.AsSpan(place * LeafEnvelope.SaltBytes, LeafEnvelope.SaltBytes);
        ReadOnlySpan<byte> committed = commitments;
        if (secrets.Erasures.TryGetValue(position, out var kept))
        {
            Interlocked.Increment(ref _erased);
            if (salt.ContainsAnyExcept((byte)0) || !row.Data.SequenceEqual("{}"u8) || kept.Length != LeafEnvelope.CommitmentsBytes)
            {
                return new LogFinding(position, "The event is noted as erased, but its payload or its salt is there.");
            }

            committed = kept;
        }
        else
        {
            try
            {
                LeafEnvelope.Commit(row, salt, scratch, commitments);
            }
            catch (Exception exception) when (exception is JsonException or InvalidOperationException)
            {
                return new LogFinding(position, "The event's payload is not JSON.");
            }
        }

        entry.Clear();
        entry.Write((byte)0);
        LeafEnvelope.Write(row, pseudonym, committed, entry);
        return MerkleTree.LeafAfterRoom(entry.Written) == MerkleHash.At(hashes, place) ? null
            : new LogFinding(
                position,
                $"The event of type '{Encoding.UTF8.GetString(row.Type)}', version {row.VersionNumber} of the stream '{Encoding.UTF8.GetString(row.StreamId)}', is not the one that was sealed, or its salt or its leaf was changed.");
    }

    /// <summary>Computes each tile above the leaves from those below. The leaves' tiles were compared with the events.</summary>
    private async Task VerifyUpperTiles(LogClaims claims, CancellationToken cancellation)
    {
        const int TilesAtOnce = 256;
        for (var (level, hashes) = (0, claims.Size); hashes >= TilePath.Width; level++, hashes /= TilePath.Width)
        {
            var parents = hashes / TilePath.Width;
            for (var from = 0L; from < parents; from += TilesAtOnce)
            {
                var count = (int)Math.Min(TilesAtOnce, parents - from);
                var children = await log.ReadTiles([.. Enumerable.Range(0, count).Select(i => new TileId(level, from + i))], cancellation);
                var parent = new TileId(level + 1, from / TilePath.Width);
                var above = await log.ReadTiles([parent], cancellation);
                for (var i = 0; i < count; i++)
                {
                    var child = new TileId(level, from + i);
                    if (!children.TryGetValue(child, out var below) || below.Length != TilePath.Width * MerkleHash.Bytes)
                    {
                        throw new MissingTileException(child);
                    }

                    if (!above.TryGetValue(parent, out var row) || row.Length < (i + 1) * MerkleHash.Bytes)
                    {
                        throw new MissingTileException(parent);
                    }

                    if (TiledTree.TileRoot(below) != MerkleHash.At(row, i))
                    {
                        throw Wrong($"The tile {TilePath.OfHashes(parent.Level, parent.Index, TilePath.Width)} is not made of the tiles below it, from hash {i} on.");
                    }
                }
            }
        }

        if (await new TiledTree(log).Root(claims.Size, cancellation) != claims.Root)
        {
            throw Wrong($"The tiles do not give the root that is noted for the {claims.Size} events that were sealed.");
        }
    }

    private static LogFinding Missing(long position) => new(position, $"The event at position {position} is missing.");

    private static WrongLogException Wrong(string what, long? position = null) => new(new LogFinding(position, what));

    private sealed class WrongLogException(LogFinding finding) : Exception(finding.What)
    {
        public LogFinding Finding { get; } = finding;
    }
}
