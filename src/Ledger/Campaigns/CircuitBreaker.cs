namespace Ledger.Campaigns;

/// <summary>What a call says of whoever was called.</summary>
public enum CallVerdict
{
    /// <summary>Nothing: the call was given up before it could show.</summary>
    None,

    /// <summary>It works.</summary>
    Healthy,

    /// <summary>It does not work; many of these in a row open the breaker.</summary>
    Faulty,

    /// <summary>It will not work for any call until somebody changes something: the breaker opens at once.</summary>
    Misconfigured,

    /// <summary>It asked to be left alone for a while: the breaker opens at once, for that long.</summary>
    Busy,
}

/// <summary>Whether calls are made.</summary>
public enum BreakerState
{
    /// <summary>They are.</summary>
    Closed,

    /// <summary>One is, to find out.</summary>
    HalfOpen,

    /// <summary>None is.</summary>
    Open,
}

/// <summary>
/// Stops calling what does not work. After <see cref="FailuresToOpen"/> failures in a row it opens for a while, twice as long
/// each time it opens again; then it lets one call through, and closes if that one works. What calls say that began before the
/// breaker last changed does not count.
/// </summary>
public sealed class CircuitBreaker(TimeProvider clock, Func<double> random)
{
    /// <summary>Failures in a row that open it. Where a third of all calls fails at random, so many in a row do not happen.</summary>
    public const int FailuresToOpen = 20;

    /// <summary>How long it stays open the first time, at most.</summary>
    public static readonly TimeSpan FirstOpen = TimeSpan.FromSeconds(1);

    /// <summary>How long it stays open however often it opens again.</summary>
    public static readonly TimeSpan LongestOpen = TimeSpan.FromMinutes(1);

    private readonly Lock _lock = new();
    private readonly long _origin = clock.GetTimestamp();
    private long _epoch;
    private int _failures;
    private int _openings;
    private bool _isOpen;
    private bool _isProbing;
    private TimeSpan _opensUntil;

    /// <summary>The leave to make a call.</summary>
    public readonly record struct Permit(long Epoch);

    /// <summary>Its state right now.</summary>
    public BreakerState State
    {
        get
        {
            lock (_lock)
            {
                return !_isOpen ? BreakerState.Closed : Now < _opensUntil ? BreakerState.Open : BreakerState.HalfOpen;
            }
        }
    }

    /// <summary>Whether <see cref="TryEnter"/> would give leave.</summary>
    public bool IsAccepting
    {
        get
        {
            lock (_lock)
            {
                return !_isOpen || (Now >= _opensUntil && !_isProbing);
            }
        }
    }

    /// <summary>In how long it is worth asking again; null when it is now.</summary>
    public TimeSpan? RetryAfter
    {
        get
        {
            lock (_lock)
            {
                var left = _opensUntil - Now;
                return !_isOpen || (left <= TimeSpan.Zero && !_isProbing) ? null : left > TimeSpan.Zero ? left : FirstOpen;
            }
        }
    }

    private TimeSpan Now => clock.GetElapsedTime(_origin);

    /// <summary>Leave to make a call, which must be given back with <see cref="Leave"/>; null: none may be made.</summary>
    public Permit? TryEnter()
    {
        lock (_lock)
        {
            if (_isOpen)
            {
                if (Now < _opensUntil || _isProbing)
                {
                    return null;
                }

                _isProbing = true;
            }

            return new Permit(_epoch);
        }
    }

    /// <summary>Takes note of what a call has shown. Returns whether that opened the breaker (true) or closed it (false).</summary>
    public bool? Leave(Permit permit, CallVerdict verdict, TimeSpan busyFor = default)
    {
        lock (_lock)
        {
            if (permit.Epoch != _epoch)
            {
                return null;
            }

            _isProbing = false;
            switch (verdict)
            {
                case CallVerdict.None:
                    return null;
                case CallVerdict.Healthy:
                    (_failures, _openings) = (0, 0);
                    if (!_isOpen)
                    {
                        return null;
                    }

                    (_isOpen, _epoch) = (false, _epoch + 1);
                    return false;
                case CallVerdict.Faulty when !_isOpen && ++_failures < FailuresToOpen:
                    return null;
                case CallVerdict.Busy:
                    Open(busyFor);
                    return true;
                default:
                    Open(RetryDelays.Doubled(FirstOpen, _openings++, LongestOpen, random()));
                    return true;
            }
        }
    }

    private void Open(TimeSpan time) => (_isOpen, _failures, _epoch, _opensUntil) = (true, 0, _epoch + 1, Now + time);
}
