using System.IO.Pipelines;
using Ledger.EventStore;
using Ledger.Http;

namespace Ledger.Usage;

/// <summary>
/// Records a stream of calls, one a line: while some chunks are being stored, the next is read and priced. Nothing more is read
/// from the socket while all places are taken, so a stream of any length takes the same memory.
/// </summary>
public sealed class StreamedCalls(CallRecorder recorder, EventReader log)
{
    /// <summary>Lines that are priced and stored together.</summary>
    public const int ChunkLines = 1_000;

    /// <summary>Chunks that are being stored at the same time.</summary>
    public const int MaxChunksInFlight = 4;

    /// <summary>
    /// Runs it. What is stored stays stored; sending the same lines again adds nothing. A chunk's calls are side by side in the
    /// log; chunks come in their order unless a price list changes just then.
    /// </summary>
    public async Task<(CallsAnswer Receipt, long Position)> Run(CommandContext context, PipeReader body, CancellationToken cancellation)
    {
        var receipt = new Receipt();
        var storing = new Queue<(Task<CallOutcome[]> Task, List<long> Lines, List<RejectedLine> Unread)>();
        try
        {
            await foreach (var chunk in LineReader.Read(body, ChunkLines, cancellation))
            {
                var (calls, lines, unread) = (new List<ReportedCall>(chunk.Count), new List<long>(chunk.Count), new List<RejectedLine>());
                foreach (var line in chunk)
                {
                    if (Read(line, out var rejection) is { } call)
                    {
                        calls.Add(call);
                        lines.Add(line.Number);
                    }
                    else
                    {
                        unread.Add(RejectedLine.Of(line.Number, rejection!));
                    }
                }

                if (storing.Count == MaxChunksInFlight)
                {
                    await Finish();
                }

                storing.Enqueue((calls.Count == 0 ? Task.FromResult<CallOutcome[]>([]) : recorder.Record(context, calls, allOrNothing: false, isList: false, lines, cancellation), lines, unread));
            }

            while (storing.Count > 0)
            {
                await Finish();
            }
        }
        catch (Exception exception) when (RefusedRequestException.IsUnavailable(exception))
        {
            throw RefusedRequestException.OfStream(receipt.Received, receipt.Position);
        }
        finally
        {
            await Task.WhenAll(storing.Select(s => (Task)s.Task)).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing); // what began is stored, whatever else failed
        }

        return (receipt.Answer, receipt.Position > 0 ? receipt.Position : await log.ReadHead(cancellation));

        async Task Finish()
        {
            var (task, lines, unread) = storing.Dequeue();
            receipt.Add(await task, lines, unread);
        }
    }

    private static ReportedCall? Read(Line line, out Rejection? rejection)
    {
        rejection = RejectedLine.TooLong;
        if (line.TooLong || !Json.TryRead<CallBody>(line.Text.Span, out var body, out rejection))
        {
            return null;
        }

        var errors = new Validation();
        var call = ReportedCall.From(body, errors);
        rejection = errors.Rejection;
        return call;
    }

    private sealed class Receipt
    {
        private readonly List<RejectedLine> _rejections = [];
        private long _accepted;
        private long _duplicates;
        private long _rejected;

        public long Position { get; private set; }

        public long Received => _accepted + _duplicates + _rejected;

        public CallsAnswer Answer => new(_accepted, _duplicates, null, Received, _rejected, _rejections);

        public void Add(CallOutcome[] outcomes, List<long> lines, List<RejectedLine> unread)
        {
            for (var i = 0; i < outcomes.Length; i++)
            {
                if (outcomes[i].Rejection is { } rejection)
                {
                    unread.Add(RejectedLine.Of(lines[i], rejection));
                    continue;
                }

                _ = outcomes[i].Outcome == AppendOutcome.Duplicate ? _duplicates++ : _accepted++;
                Position = Math.Max(Position, outcomes[i].Position);
            }

            _rejected += unread.Count;
            _rejections.AddRange(unread.OrderBy(r => r.Line).Take(RejectedLine.MaxNamed - _rejections.Count));
        }
    }
}
