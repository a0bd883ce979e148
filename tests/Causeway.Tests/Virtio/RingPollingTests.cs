using Causeway.Virtio;

namespace Causeway.Tests.Virtio;

/// <summary>When a thread looks at a ring before it sleeps. Looks are counted, time is not.</summary>
public sealed class RingPollingTests
{
    [Fact]
    public void Nobody_looks_without_a_seat()
    {
        var polling = new RingPolling(new PollingSeats(0));

        Assert.DoesNotContain(true, Enumerable.Range(0, 5000).Select(_ => polling.TryBegin()));
        Assert.Equal(0, polling.Polls);
    }

    [Fact]
    public void A_seat_is_free_again_after_a_look()
    {
        var seats = new PollingSeats(1);
        RingPolling first = new(seats), second = new(seats);

        Assert.True(first.TryBegin());
        Assert.False(second.TryBegin());
        first.End(found: true);
        Assert.True(second.TryBegin());
    }

    [Fact]
    public void Success_keeps_it_looking_each_time()
    {
        var polling = new RingPolling(new PollingSeats(1));
        for (int i = 0; i < 1000; i++)
        {
            Assert.True(polling.TryBegin());
            polling.End(found: true);
        }

        Assert.Equal((1000, 1000), (polling.Polls, polling.Successes));
    }

    [Fact]
    public void Looking_in_vain_becomes_rare()
    {
        var polling = new RingPolling(new PollingSeats(1));

        int looks = Wait(polling, times: 100_000, found: false);

        // After 4, 16, 64 and 256 sleeps, and then one in 1025.
        Assert.Equal(102, looks);
    }

    [Fact]
    public void It_comes_back_when_looking_pays_again()
    {
        var polling = new RingPolling(new PollingSeats(1));
        Wait(polling, times: 10_000, found: false);

        Wait(polling, times: 1025, found: true);

        Assert.Equal(1000, Wait(polling, times: 1000, found: true));
    }

    [Fact]
    public void Every_other_success_is_not_enough()
    {
        var polling = new RingPolling(new PollingSeats(1));
        int looks = 0;
        for (int i = 0; i < 100_000; i++)
        {
            if (polling.TryBegin())
            {
                polling.End(found: looks++ % 2 == 0);
            }
        }

        Assert.InRange(looks, 1, 2000);
    }

    [Fact]
    public void A_look_ends_although_nothing_comes()
    {
        var polling = new RingPolling(new PollingSeats(1));
        Assert.True(polling.TryBegin());

        while (polling.GoOn())
        {
        }

        polling.End(found: false);
        Assert.False(polling.TryBegin());
    }

    private static int Wait(RingPolling polling, int times, bool found)
    {
        int looks = 0;
        for (int i = 0; i < times; i++)
        {
            if (polling.TryBegin())
            {
                looks++;
                polling.End(found);
            }
        }

        return looks;
    }
}
