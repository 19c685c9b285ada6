using System.Collections.Concurrent;
using System.Diagnostics.Metrics;
using System.Numerics;

namespace Ledger.Hosting;

/// <summary>
/// Gathers what this node measures, from its first moment on, to be asked for at <c>/metrics</c>. Measuring allocates nothing
/// and takes no lock; asking runs no query.
/// </summary>
public sealed partial class MetricCollector : IHostedLifecycleService, IDisposable
{
    /// <summary>
    /// Sets of tags that are told apart, for each instrument. What is measured under further ones is added up under
    /// <c>otel_metric_overflow="true"</c> and counted by <c>ledger.metrics.overflowed</c>.
    /// </summary>
    public const int MaxSeriesPerInstrument = 1_000;

    /// <summary>The meters whose instruments are gathered, and exported over OTLP.</summary>
    internal static readonly string[] Meters =
        [EventStore.Telemetry.Name, "Ledger", "Npgsql", "Microsoft.AspNetCore.Hosting", "Microsoft.AspNetCore.Server.Kestrel", "System.Runtime"];

    private static readonly Meter Meter = new("Ledger");

    private static readonly Counter<long> Overflowed = Meter.CreateCounter<long>(
        "ledger.metrics.overflowed", "{measurement}", "Measurements whose instrument has too many series to give them one of their own");

    private readonly ConcurrentDictionary<Instrument, MeasuredInstrument> _instruments = [];
    private readonly MeterListener _listener = new();
    private readonly Lock _asking = new();
    private readonly ILogger<MetricCollector> _logger;
    private long _round;

    /// <summary>A collector that has yet to be started. Of the meters that belong to a host, only those of <paramref name="own"/> are heard.</summary>
    public MetricCollector(IMeterFactory own, ILogger<MetricCollector> logger)
    {
        _logger = logger;
        _listener.InstrumentPublished = (instrument, listener) =>
        {
            if (Meters.Contains(instrument.Meter.Name) && (instrument.Meter.Scope is null || ReferenceEquals(instrument.Meter.Scope, own)))
            {
                var measured = _instruments[instrument] = new MeasuredInstrument(instrument, CountOverflow);
                listener.EnableMeasurementEvents(instrument, measured);
            }
        };
        _listener.MeasurementsCompleted = (instrument, _) => _instruments.TryRemove(instrument, out var _);
        Hear<byte>();
        Hear<short>();
        Hear<int>();
        Hear<long>();
        Hear<float>();
        Hear<double>();
        Hear<decimal>();
    }

    /// <summary>Begins before anything is started that measures.</summary>
    public Task StartingAsync(CancellationToken cancellationToken)
    {
        _listener.Start();
        return Task.CompletedTask;
    }

    /// <inheritdoc/>
    public Task StartAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    /// <inheritdoc/>
    public Task StartedAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    /// <inheritdoc/>
    public Task StoppingAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    /// <inheritdoc/>
    public Task StopAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    /// <inheritdoc/>
    public Task StoppedAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    /// <inheritdoc/>
    public void Dispose() => _listener.Dispose();

    /// <summary>Asks the instruments that are asked for their values, and gives every instrument with those of its series that it still has.</summary>
    internal IReadOnlyList<(MeasuredInstrument Instrument, IReadOnlyList<MetricSeries> Series)> Collect()
    {
        lock (_asking)
        {
            Interlocked.Increment(ref _round);
            try
            {
                _listener.RecordObservableInstruments();
            }
            catch (AggregateException exception)
            {
                LogUnasked(exception); // the other instruments were asked
            }

            return [.. _instruments.Values.Select(i => (i, (IReadOnlyList<MetricSeries>)[.. i.Series.Where(s => !i.IsObserved || s.Round == _round)]))];
        }
    }

    private static void CountOverflow(string instrument) => Overflowed.Add(1, new KeyValuePair<string, object?>("instrument", instrument));

    private void Hear<T>()
        where T : struct, INumber<T> =>
        _listener.SetMeasurementEventCallback<T>((_, value, tags, state) =>
            ((MeasuredInstrument)state!).Measure(double.CreateSaturating(value), tags, Volatile.Read(ref _round)));

    [LoggerMessage(LogLevel.Warning, "An instrument could not say its value")]
    private partial void LogUnasked(Exception exception);
}
