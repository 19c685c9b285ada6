using Ledger.Campaigns;

namespace Ledger.Tests.Campaigns;

public sealed class The_breaker
{
    private readonly ManualTime _time = new();
    private readonly CircuitBreaker _breaker;

    public The_breaker() => _breaker = new CircuitBreaker(_time, () => 1);

    private void Fail(int times)
    {
        for (var i = 0; i < times; i++)
        {
            _breaker.Leave(_breaker.TryEnter()!.Value, CallVerdict.Faulty);
        }
    }

    [Fact]
    public void opens_after_so_many_failures_in_a_row_and_not_before()
    {
        Fail(CircuitBreaker.FailuresToOpen - 1);
        Assert.Null(_breaker.Leave(_breaker.TryEnter()!.Value, CallVerdict.Healthy));
        Fail(CircuitBreaker.FailuresToOpen - 1);
        Assert.Equal((BreakerState.Closed, true, null), (_breaker.State, _breaker.IsAccepting, _breaker.RetryAfter));

        Assert.True(_breaker.Leave(_breaker.TryEnter()!.Value, CallVerdict.Faulty));

        Assert.Equal((BreakerState.Open, false, CircuitBreaker.FirstOpen), (_breaker.State, _breaker.IsAccepting, _breaker.RetryAfter));
        Assert.Null(_breaker.TryEnter());
    }

    [Fact]
    public void lets_one_call_through_when_the_time_is_over_and_closes_if_it_works()
    {
        Fail(CircuitBreaker.FailuresToOpen);
        _time.Advance(CircuitBreaker.FirstOpen - TimeSpan.FromTicks(1));
        Assert.Null(_breaker.TryEnter());
        _time.Advance(TimeSpan.FromTicks(1));
        Assert.Equal((BreakerState.HalfOpen, true, null), (_breaker.State, _breaker.IsAccepting, _breaker.RetryAfter));

        var probe = _breaker.TryEnter()!.Value;
        Assert.Equal((null, false), (_breaker.TryEnter(), _breaker.IsAccepting));
        Assert.NotNull(_breaker.RetryAfter);
        Assert.False(_breaker.Leave(probe, CallVerdict.Healthy));

        Assert.Equal((BreakerState.Closed, true), (_breaker.State, _breaker.IsAccepting));
        Fail(CircuitBreaker.FailuresToOpen - 1);
        Assert.True(_breaker.IsAccepting);
    }

    [Fact]
    public void stays_open_twice_as_long_each_time_up_to_the_longest()
    {
        Fail(CircuitBreaker.FailuresToOpen);
        var expected = CircuitBreaker.FirstOpen;
        for (var i = 0; i < 12; i++)
        {
            Assert.Equal(expected, _breaker.RetryAfter);
            _time.Advance(expected);
            Assert.True(_breaker.Leave(_breaker.TryEnter()!.Value, CallVerdict.Faulty));
            expected = expected * 2 < CircuitBreaker.LongestOpen ? expected * 2 : CircuitBreaker.LongestOpen;
        }

        _time.Advance(expected);
        _breaker.Leave(_breaker.TryEnter()!.Value, CallVerdict.Healthy);
        Fail(CircuitBreaker.FailuresToOpen);
        Assert.Equal(CircuitBreaker.FirstOpen, _breaker.RetryAfter); // all is forgiven
    }

    [Fact]
    public void stays_open_at_least_half_as_long_by_chance()
    {
        var breaker = new CircuitBreaker(_time, () => 0);
        breaker.Leave(breaker.TryEnter()!.Value, CallVerdict.Misconfigured);
        Assert.Equal(CircuitBreaker.FirstOpen / 2, breaker.RetryAfter);
    }

    [Theory]
    [InlineData(CallVerdict.Misconfigured)]
    [InlineData(CallVerdict.Busy)]
    public void opens_at_once_for_what_no_call_can_mend(CallVerdict verdict)
    {
        Assert.True(_breaker.Leave(_breaker.TryEnter()!.Value, verdict, TimeSpan.FromSeconds(90)));
        Assert.Equal(verdict == CallVerdict.Busy ? TimeSpan.FromSeconds(90) : CircuitBreaker.FirstOpen, _breaker.RetryAfter);
    }

    [Fact]
    public void does_not_hear_calls_that_began_before_it_changed()
    {
        var early = Enumerable.Range(0, 50).Select(_ => _breaker.TryEnter()!.Value).ToArray();
        Fail(CircuitBreaker.FailuresToOpen);
        Assert.All(early[..20], p => Assert.Null(_breaker.Leave(p, CallVerdict.Healthy)));
        Assert.All(early[20..40], p => Assert.Null(_breaker.Leave(p, CallVerdict.Busy, TimeSpan.FromHours(1))));
        Assert.Equal((BreakerState.Open, CircuitBreaker.FirstOpen), (_breaker.State, _breaker.RetryAfter));

        _time.Advance(CircuitBreaker.FirstOpen);
        var probe = _breaker.TryEnter()!.Value;
        Assert.All(early[40..45], p => Assert.Null(_breaker.Leave(p, CallVerdict.Faulty)));
        Assert.Null(_breaker.TryEnter()); // the probe is still out
        Assert.False(_breaker.Leave(probe, CallVerdict.Healthy));
        Assert.All(early[45..], p => Assert.Null(_breaker.Leave(p, CallVerdict.Misconfigured)));
        Assert.Equal(BreakerState.Closed, _breaker.State);
    }

    [Fact]
    public void asks_another_call_when_the_one_it_let_through_was_given_up()
    {
        Fail(CircuitBreaker.FailuresToOpen);
        _time.Advance(CircuitBreaker.FirstOpen);
        Assert.Null(_breaker.Leave(_breaker.TryEnter()!.Value, CallVerdict.None));
        Assert.Equal((BreakerState.HalfOpen, true), (_breaker.State, _breaker.IsAccepting));
        Assert.NotNull(_breaker.TryEnter());
    }

    [Fact]
    public void lets_exactly_one_of_many_at_once_through()
    {
        Fail(CircuitBreaker.FailuresToOpen);
        for (var round = 0; round < 200; round++)
        {
            _time.Advance(CircuitBreaker.LongestOpen);
            var entered = new System.Collections.Concurrent.ConcurrentBag<CircuitBreaker.Permit>();
            Parallel.For(0, 16, _ =>
            {
                if (_breaker.TryEnter() is { } permit)
                {
                    entered.Add(permit);
                }
            });
            _breaker.Leave(Assert.Single(entered), CallVerdict.Faulty);
        }
    }

    /// <summary>Time that passes when told to.</summary>
    private sealed class ManualTime : TimeProvider
    {
        private long _ticks = TestClock.Start.Ticks;

        public override long TimestampFrequency => TimeSpan.TicksPerSecond;

        public void Advance(TimeSpan by) => Interlocked.Add(ref _ticks, by.Ticks);

        public override long GetTimestamp() => Interlocked.Read(ref _ticks);

        public override DateTimeOffset GetUtcNow() => new(Interlocked.Read(ref _ticks), TimeSpan.Zero);
    }
}
