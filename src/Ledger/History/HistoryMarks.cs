using System.Numerics;
using System.Runtime.CompilerServices;

namespace Ledger.History;

/// <summary>256 positions side by side, one bit each.</summary>
internal readonly record struct MarkedBlock(long B0, long B1, long B2, long B3)
{
    /// <summary>The block of a position, which counts from 1.</summary>
    public static long Of(long position) => (position - 1) / HistoryMarks.BlockPositions;

    public MarkedBlock With(long position)
    {
        var bit = (int)((position - 1) % HistoryMarks.BlockPositions);
        var mask = 1L << (bit & 63);
        return (bit >> 6) switch
        {
            0 => this with { B0 = B0 | mask },
            1 => this with { B1 = B1 | mask },
            2 => this with { B2 = B2 | mask },
            _ => this with { B3 = B3 | mask },
        };
    }

    public static MarkedBlock operator &(MarkedBlock one, MarkedBlock other) =>
        new(one.B0 & other.B0, one.B1 & other.B1, one.B2 & other.B2, one.B3 & other.B3);

    /// <summary>The positions marked, ascending.</summary>
    public IEnumerable<long> Positions(long block)
    {
        long[] words = [B0, B1, B2, B3];
        for (var i = 0; i < words.Length; i++)
        {
            for (var word = (ulong)words[i]; word != 0; word &= word - 1)
            {
                yield return (block * HistoryMarks.BlockPositions) + (i * 64) + BitOperations.TrailingZeroCount(word) + 1;
            }
        }
    }
}

/// <summary>One thing that all events looked for have in common.</summary>
/// <param name="Dimension"><see cref="HistoryMarks.Kind"/> and so on.</param>
/// <param name="Value">The kind, the slug and so on.</param>
public sealed record HistoryMark(string Dimension, string Value);

/// <summary>
/// Finds events by what they are about, through the rows of <c>history_marks</c>: exactly, and without reading an event. Marks
/// asked for together are intersected block by block; where one of them has no rows for a while, the others skip as far.
/// </summary>
public sealed class HistoryMarks(ViewDatabase views)
{
    /// <summary>The view it rests on.</summary>
    public const string View = HistoryProjection.View;

    /// <summary>Positions that share a row.</summary>
    public const int BlockPositions = 256;

    /// <summary>Rows of one mark read at once, at most.</summary>
    public const int MaxRowsAtOnce = 512;

    /// <summary>What can be asked for.</summary>
    public const string All = "all", Kind = "kind", Segment = "segment", Service = "service", Actor = "actor";

    private const int FirstRows = 8;

    /// <summary>
    /// The positions of the events that have all the marks, after one position and up to another, the newest or the oldest
    /// first, in lists of at most a block. No connection is held between two of them.
    /// </summary>
    public async IAsyncEnumerable<IReadOnlyList<long>> Positions(
        string tenantId, IReadOnlyList<HistoryMark> marks, long after, long upTo, bool newestFirst,
        [EnumeratorCancellation] CancellationToken cancellation)
    {
        if (after >= upTo)
        {
            yield break;
        }

        var (first, last) = (MarkedBlock.Of(after + 1), MarkedBlock.Of(upTo));
        var walks = marks.Select(m => new Walk(views, tenantId, m, first, last, newestFirst)).ToArray();
        var block = newestFirst ? last : first;
        while (block >= first && block <= last)
        {
            MarkedBlock? all = null;
            foreach (var walk in walks)
            {
                if (await walk.MoveTo(block, cancellation) is not { } found)
                {
                    yield break;
                }

                all = all is null ? found.Marks : all & found.Marks;
                if (found.Block != block)
                {
                    block = found.Block;
                    all = walk == walks[0] ? all : null;
                    if (all is null)
                    {
                        break; // those before this one have to follow
                    }
                }
            }

            if (all is { } shared)
            {
                var positions = shared.Positions(block).Where(p => p > after && p <= upTo).ToList();
                if (positions.Count > 0)
                {
                    if (newestFirst)
                    {
                        positions.Reverse();
                    }

                    yield return positions;
                }

                block += newestFirst ? -1 : 1;
            }
        }
    }

    internal static string Statement(bool newestFirst) =>
        $"""
         select m.block, m.b0, m.b1, m.b2, m.b3 from history_marks m
         where m.tenant_id = $1 and m.dimension = $2 and m.value = $3 and m.block between $4 and $5
         order by m.block {(newestFirst ? "desc" : "")} limit $6
         """;

    /// <summary>One mark's rows, in order, read as far as needed: more at once while they are used one after the other.</summary>
    private sealed class Walk(ViewDatabase views, string tenantId, HistoryMark mark, long first, long last, bool newestFirst)
    {
        private List<(long Block, MarkedBlock Marks)> _rows = [];
        private int _next;
        private int _wanted = FirstRows;
        private bool _isWhole;

        /// <summary>The first row at a block or beyond it; null when there is none.</summary>
        public async Task<(long Block, MarkedBlock Marks)?> MoveTo(long block, CancellationToken cancellation)
        {
            while (true)
            {
                for (; _next < _rows.Count; _next++)
                {
                    var row = _rows[_next];
                    if (newestFirst ? row.Block <= block : row.Block >= block)
                    {
                        return row;
                    }
                }

                if (_isWhole)
                {
                    return null;
                }

                var isNeighbour = _rows.Count > 0 && Math.Abs(_rows[^1].Block - block) <= 1;
                _wanted = isNeighbour ? Math.Min(2 * _wanted, MaxRowsAtOnce) : FirstRows;
                await Load(block, cancellation);
            }
        }

        private async Task Load(long block, CancellationToken cancellation)
        {
            _next = 0;
            _rows = await views.Rows(
                tenantId,
                Sql.Command(
                    Statement(newestFirst), Sql.Value(tenantId), Sql.Value(mark.Dimension), Sql.Value(mark.Value),
                    Sql.Value(newestFirst ? first : block), Sql.Value(newestFirst ? block : last), Sql.Value(_wanted)),
                row => (row.GetInt64(0), new MarkedBlock(row.GetInt64(1), row.GetInt64(2), row.GetInt64(3), row.GetInt64(4))), cancellation);
            _isWhole = _rows.Count < _wanted;
        }
    }
}
