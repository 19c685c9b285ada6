using System.Collections.Concurrent;
using System.Diagnostics;
using System.Diagnostics.Metrics;
using Ledger.EventStore.Tests.Support;
using Ledger.Testing;
using static Ledger.EventStore.Tests.Support.TestStore;

namespace Ledger.EventStore.Tests;

/// <summary>Dashboards and alerts rely on these names.</summary>
public sealed class The_telemetry(PostgresFixture postgres)
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task links_a_projected_batch_to_the_appends_it_folds()
    {
        var spans = new ConcurrentQueue<Activity>();
        using var listener = new ActivityListener
        {
            ShouldListenTo = source => source.Name is Telemetry.Name or "caller",
            Sample = (ref _) => ActivitySamplingResult.AllDataAndRecorded,
            ActivityStopped = spans.Enqueue,
        };
        ActivitySource.AddActivityListener(listener);
        using var caller = new ActivitySource("caller");
        await using var store = await TestStore.Create(postgres);
        await using var node = await TestNode.Start(store);

        ActivityTraceId trace;
        using (var request = caller.StartActivity("request"))
        {
            trace = request!.TraceId;
            await store.StartAppender().Append(Request("a", new Deposited("a", 1), new Deposited("a", 2)), Ct);
        }

        await node.CatchUp();
        await Runs.Until(() => Task.FromResult(Projects().Any()), "the span of the batch ends");

        var append = Assert.Single(spans, s => s.OperationName == "append" && s.TraceId == trace);
        Assert.Equal((ActivityKind.Producer, 2L, "appended"), (append.Kind, append.GetTagItem("ledger.position"), append.GetTagItem("ledger.append.outcome")));
        Assert.All(await store.Log(), e => Assert.Equal(append.Id, e.TraceParent));
        var project = Assert.Single(Projects());
        Assert.Equal((ActivityKind.Consumer, 2L, 2), (project.Kind, project.GetTagItem("ledger.position"), project.GetTagItem("ledger.events")));
        Assert.Equal(append.Context.SpanId, Assert.Single(project.Links).Context.SpanId);
        Assert.NotEqual(trace, project.TraceId);

        IEnumerable<Activity> Projects() => spans.Where(s => s.OperationName == "project" && s.Links.Any(l => l.Context.TraceId == trace));
    }

    [Fact]
    public async Task keeps_no_trace_of_what_is_not_recorded()
    {
        await using var store = await TestStore.Create(postgres);
        using (var unrecorded = new Activity("request").Start())
        {
            await store.StartAppender().Append(Request("a", new Ignored()), Ct);
        }

        Assert.DoesNotContain((await store.Log()).Select(e => e.TraceParent), parent => parent is not null && parent.EndsWith("-00", StringComparison.Ordinal));
    }

    [Fact]
    public async Task measures_under_names_and_units_that_stay()
    {
        var instruments = new ConcurrentDictionary<string, string>();
        var seen = new ConcurrentDictionary<(string Name, string Tags), double>();
        using var listener = new MeterListener
        {
            InstrumentPublished = (instrument, self) =>
            {
                if (instrument.Meter.Name == Telemetry.Name)
                {
                    instruments[instrument.Name] = $"{instrument.GetType().Name.Split('`')[0]} {instrument.Unit}";
                    self.EnableMeasurementEvents(instrument);
                }
            },
        };
        listener.SetMeasurementEventCallback<long>((instrument, value, tags, _) => Note(instrument, value, tags));
        listener.SetMeasurementEventCallback<int>((instrument, value, tags, _) => Note(instrument, value, tags));
        listener.SetMeasurementEventCallback<double>((instrument, value, tags, _) => Note(instrument, value, tags));
        listener.Start();
        await using var store = await TestStore.Create(postgres);
        await using var node = await TestNode.Start(store, views: [new Totals(), new Entries { Poison = 1 }]);
        var appender = store.StartAppender();

        await appender.Append(Keyed("k", "a", null, new Deposited("a", 1)), Ct);
        await appender.Append(Keyed("k", "a", null, new Deposited("a", 1)), Ct);
        await appender.Append(Keyed("k", "a", "other"), Ct);
        await appender.Append(Request("a", new Ignored()) with { Conditions = [new("a", 7)] }, Ct);
        await Assert.ThrowsAnyAsync<Exception>(() => appender.Append(Request("a", new Noted("\0")), Ct));
        await node.Becomes("Entries", s => s.State == "failed", "the view fails");
        await Runs.Until(() => Task.FromResult(node.Views.Latest.Any(s => s.State == "failed")), "the node hears of it");
        await Runs.Until(() => Task.FromResult(seen.ContainsKey(("ledger.projection.failures", "view=Entries"))), "the failure is counted");
        await Runs.Until(() => Task.FromResult(seen.Keys.Any(s => s.Name == "ledger.projection.batch.duration")), "the batch of the other view is measured");
        await node.Covered();
        await Runs.Until(() => Task.FromResult(seen.Keys.Any(s => s.Name == "ledger.log.page.duration")), "the page is measured");
        listener.RecordObservableInstruments();

        Assert.Equal(
            [
                "ledger.append.batch.size Histogram {event}", "ledger.append.commit.duration Histogram s", "ledger.append.events Counter {event}",
                "ledger.append.lock.duration Histogram s", "ledger.append.queue.duration Histogram s", "ledger.append.requests Counter {request}",
                "ledger.checkpoint.age ObservableGauge s", "ledger.checkpoint.refused ObservableGauge {refusal}", "ledger.checkpoint.size ObservableGauge {event}",
                "ledger.log.events Counter {event}", "ledger.log.page.duration Histogram s",
                "ledger.projection.batch.duration Histogram s", "ledger.projection.events Counter {event}", "ledger.projection.failures Counter {failure}",
                "ledger.projection.lag ObservableGauge s", "ledger.projection.lag.events ObservableGauge {event}",
                "ledger.projection.position ObservableGauge {event}", "ledger.projection.rebuild.position ObservableGauge {event}",
            ],
            instruments.Select(i => $"{i.Key} {i.Value}").Order(StringComparer.Ordinal));
        Assert.Empty(instruments.Keys.Except(seen.Keys.Select(s => s.Name)));
        Assert.Equal(
            ["outcome=appended", "outcome=condition_failed", "outcome=duplicate", "outcome=failed", "outcome=key_reused"],
            seen.Keys.Where(s => s.Name == "ledger.append.requests").Select(s => s.Tags).Order());
        Assert.All(
            seen.Keys.Where(s => s.Name.StartsWith("ledger.projection.", StringComparison.Ordinal) && s.Name != "ledger.projection.batch.duration"),
            s => Assert.StartsWith("view=", s.Tags, StringComparison.Ordinal));

        void Note(Instrument instrument, double value, ReadOnlySpan<KeyValuePair<string, object?>> tags) =>
            seen[(instrument.Name, string.Join(',', tags.ToArray().Select(t => $"{t.Key}={t.Value}")))] = value;
    }
}
