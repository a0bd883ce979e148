using System.Threading.Tasks.Sources;
using Causeway.Fuse;

namespace Causeway.Tests.Fuse;

public sealed class LateResultTests
{
    private LateResult<int> _late;

    [Fact]
    public void Who_waits_goes_on_where_the_result_is_set()
    {
        int seen = 0;
        _late.Reset();
        short version = _late.Version;
        Assert.Equal(ValueTaskSourceStatus.Pending, _late.GetStatus(version));
        _late.OnCompleted(_ => seen = _late.GetResult(version), null, version);
        Assert.Equal(0, seen);
        _late.SetResult(5);
        Assert.Equal(5, seen);
        Assert.Equal(ValueTaskSourceStatus.Succeeded, _late.GetStatus(version));
    }

    [Fact]
    public void Who_comes_too_late_to_wait_goes_on_at_once()
    {
        object state = new();
        object? seen = null;
        _late.Reset();
        _late.SetResult(5);
        _late.OnCompleted(given => seen = given, state, _late.Version);
        Assert.Same(state, seen);
        Assert.Equal(5, _late.GetResult(_late.Version));
    }

    [Fact]
    public void Nobody_gets_the_result_of_another_use_or_one_that_is_not_there()
    {
        _late.Reset();
        short first = _late.Version;
        Assert.Throws<InvalidOperationException>(() => _late.GetResult(first));
        _late.SetResult(1);
        _late.Reset();
        Assert.Throws<InvalidOperationException>(() => _late.GetStatus(first));
        Assert.Throws<InvalidOperationException>(() => _late.OnCompleted(_ => { }, null, first));
        Assert.Throws<InvalidOperationException>(() => _late.GetResult(_late.Version));
    }

    [Fact]
    public void Of_two_that_come_at_the_same_time_one_goes_on_and_once()
    {
        const int rounds = 50_000;
        int count = 0;
        using var barrier = new Barrier(2);
        var setter = new Thread(() =>
        {
            for (int i = 1; i <= rounds; i++)
            {
                barrier.SignalAndWait(TestContext.Current.CancellationToken);
                _late.SetResult(i);
                barrier.SignalAndWait(TestContext.Current.CancellationToken);
            }
        });
        _late.Reset();
        setter.Start();
        for (int i = 1; i <= rounds; i++)
        {
            int expected = i;
            barrier.SignalAndWait(TestContext.Current.CancellationToken);
            _late.OnCompleted(
                _ => count += _late.GetResult(_late.Version) == expected ? 1 : rounds, null, _late.Version);
            barrier.SignalAndWait(TestContext.Current.CancellationToken);
            Assert.Equal(i, count);
            _late.Reset();
        }

        setter.Join();
    }
}
