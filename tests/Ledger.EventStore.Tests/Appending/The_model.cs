using Ledger.EventStore.Tests.Support;
using Ledger.Testing;
using static Ledger.EventStore.Tests.Support.TestStore;

namespace Ledger.EventStore.Tests.Appending;

/// <summary>What the store promises, without a database; any sequence of requests must end the same in both.</summary>
public sealed class The_model(PostgresFixture postgres)
{
    private static readonly string[] Tenants = ["t1", "t2"];
    private static readonly string[] Streams = ["a", "b", "c", "d"];

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task and_the_store_agree_on_every_outcome_one_by_one_and_in_batches()
    {
        await using var store = await TestStore.Create(postgres, new EventStoreOptions { MaxBatchEvents = 30 });
        var chance = Runs.Chance();
        var model = new Model();
        var appenders = new[] { store.StartAppender(), store.StartAppender() };

        for (var step = 0; step < Runs.Size(400, 20_000); step++)
        {
            // What goes in at once through one appender is decided in that order.
            var appender = appenders[chance.Next(2)];
            var requests = Enumerable.Range(0, chance.Next(3) == 0 ? chance.Next(1, 12) : 1).Select(_ => Any(chance, model)).ToArray();
            var results = await Task.WhenAll(requests.Select(request => appender.Append(request, Ct)));
            for (var i = 0; i < requests.Length; i++)
            {
                Assert.Equal(model.Append(requests[i]), results[i] with { RecordedAt = default });
            }
        }

        Assert.Equal(
            model.Log,
            (await store.Log()).Select(e => (e.TenantId, e.StreamId, e.Version, e.Id)));
        Assert.All(Enum.GetValues<AppendOutcome>(), outcome => Assert.True(model.Outcomes.Contains(outcome), $"{outcome} never happened"));
        await store.AssertSound();
    }

    private static AppendRequest Any(Random chance, Model model)
    {
        var tenant = Tenants[chance.Next(2)];
        var key = chance.Next(3) == 0 ? null : $"k{chance.Next(150)}";
        return new AppendRequest
        {
            TenantId = tenant,
            // The model is told the ids of requests without a key, so that it can tell the whole log.
            IdempotencyId = key is null ? EventId.New() : EventId.From(tenant, key),
            Fingerprint = key is null ? null : $"{key}{chance.Next(10) / 9}",
            Appends = [.. chance.GetItems(Streams, chance.Next(1, 4)).Select(s => new StreamAppend(s, "account", [.. Enumerable.Repeat(new Ignored(), chance.Next(1, 4))]))],
            Conditions =
            [
                .. chance.GetItems(Streams, chance.Next(3))
                    .Select(s => new StreamCondition(s, Math.Max(0, model.VersionOf(tenant, s) - (chance.Next(8) == 0 ? 1 : 0)))),
            ],
        };
    }

    private sealed class Model
    {
        private readonly Dictionary<(string, string), long> _versions = [];
        private readonly Dictionary<Guid, (string? Fingerprint, AppendResult Result)> _requests = [];

        public List<(string, string, long, Guid)> Log { get; } = [];

        public HashSet<AppendOutcome> Outcomes { get; } = [];

        public long VersionOf(string tenant, string stream) => _versions.GetValueOrDefault((tenant, stream));

        public AppendResult Append(AppendRequest request)
        {
            var result = Decide(request);
            Outcomes.Add(result.Outcome);
            return result;
        }

        private AppendResult Decide(AppendRequest request)
        {
            var id = request.IdempotencyId!.Value;
            if (_requests.TryGetValue(id, out var first))
            {
                return first.Result with { Outcome = first.Fingerprint == request.Fingerprint ? AppendOutcome.Duplicate : AppendOutcome.KeyReused };
            }

            foreach (var condition in request.Conditions)
            {
                if (VersionOf(request.TenantId, condition.StreamId) is var actual && actual != condition.ExpectedVersion)
                {
                    return new AppendResult(AppendOutcome.ConditionFailed) { Failed = condition, ActualVersion = actual };
                }
            }

            var position = Log.Count + 1;
            foreach (var stream in request.Appends.SelectMany(a => a.Events.Select(_ => a.StreamId)))
            {
                var version = _versions[(request.TenantId, stream)] = VersionOf(request.TenantId, stream) + 1;
                Log.Add((request.TenantId, stream, version, EventId.Next(id, Log.Count + 1 - position)));
            }

            var result = new AppendResult(AppendOutcome.Appended)
            {
                FirstPosition = position, LastPosition = Log.Count, Version = VersionOf(request.TenantId, request.Appends[0].StreamId),
            };
            _requests[id] = (request.Fingerprint, result);
            return result;
        }
    }
}
