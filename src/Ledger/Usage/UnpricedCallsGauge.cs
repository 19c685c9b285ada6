using System.Diagnostics;
using System.Diagnostics.Metrics;
using Ledger.EventStore;
using Ledger.Services;
using Npgsql;

namespace Ledger.Usage;

/// <summary>
/// Keeps the number of calls that wait for a price at hand for whoever looks at the metrics, by reason. It looks again when
/// the view has moved, however often it is asked.
/// </summary>
internal sealed partial class UnpricedCallsGauge : BackgroundService
{
    /// <summary>How old the number may be, where counting is quick.</summary>
    public static readonly TimeSpan RefreshInterval = TimeSpan.FromSeconds(5);

    /// <summary>How many times as long as it has counted it rests at least: callers choose the units, and so how many rows there are.</summary>
    private const int Rest = 19;

    private static readonly string[] Reasons = [PricedAmount.NoPrice, PricedAmount.NoComponent, PricedAmount.AmountOutOfRange];

    private readonly Meter _meter = new("Ledger");
    private readonly NpgsqlDataSource _database;
    private readonly Views _views;
    private readonly ILogger<UnpricedCallsGauge> _logger;
    private volatile IReadOnlyDictionary<string, long>? _calls;

    public UnpricedCallsGauge(AllTenantsDatabase database, Views views, ILogger<UnpricedCallsGauge> logger)
    {
        (_database, _views, _logger) = (database.Source, views, logger);
        _meter.CreateObservableGauge("ledger.unpriced_calls", Measure, "{call}", "Calls that wait for a price, by reason");
    }

    public override void Dispose()
    {
        _meter.Dispose();
        base.Dispose();
    }

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        var seen = -1L;
        using var timer = new PeriodicTimer(RefreshInterval);
        do
        {
            try
            {
                var position = _views.Latest.FirstOrDefault(v => v.Name == CallsProjection.View)?.Position ?? 0;
                if (position != seen)
                {
                    var begun = Stopwatch.GetTimestamp();
                    await Refresh(stoppingToken);
                    seen = position;
                    await Task.Delay(Rest * Stopwatch.GetElapsedTime(begun), stoppingToken);
                }
            }
            catch (Exception) when (stoppingToken.IsCancellationRequested)
            {
                return;
            }
            catch (Exception exception) when (DatabaseErrors.IsUnavailable(exception))
            {
                _calls = null; // not known, which is not 0
                seen = -1;
            }
            catch (Exception exception)
            {
                LogBug(exception);
                _calls = null;
                seen = -1;
            }
        }
        while (await Next(timer, stoppingToken));
    }

    private static async Task<bool> Next(PeriodicTimer timer, CancellationToken stopping)
    {
        try
        {
            return await timer.WaitForNextTickAsync(stopping);
        }
        catch (OperationCanceledException)
        {
            return false;
        }
    }

    /// <summary>What it counted last, by reason.</summary>
    internal IReadOnlyDictionary<string, long> Calls => _calls ?? new Dictionary<string, long>();

    /// <summary>
    /// Counts; the view has one row a service and reason, and only where a call waits. A reason that names a unit does so after a colon
    /// (<see cref="PricedAmount.KindOf"/>). Returns how many kinds of reasons calls wait for.
    /// </summary>
    internal async Task<int> Refresh(CancellationToken cancellation)
    {
        await using var command = _database.CreateCommand("select split_part(u.reason, ':', 1), sum(u.calls)::int8 from unpriced_calls u group by 1");
        await using var reader = await command.ExecuteReaderAsync(cancellation);
        var (calls, found) = (Reasons.ToDictionary(r => r, _ => 0L), 0);
        while (await reader.ReadAsync(cancellation))
        {
            calls[reader.GetString(0)] = reader.GetInt64(1);
            found++;
        }

        _calls = calls;
        return found;
    }

    private IEnumerable<Measurement<long>> Measure() =>
        _calls?.Select(c => new Measurement<long>(c.Value, new KeyValuePair<string, object?>("reason", c.Key))) ?? [];

    [LoggerMessage(LogLevel.Error, "The calls without a price can't be counted")]
    private partial void LogBug(Exception exception);
}
