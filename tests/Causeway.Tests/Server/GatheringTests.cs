using Causeway.Driver;
using Causeway.Fuse;
using Causeway.Passthrough;
using Causeway.Server.Queues;
using Causeway.Tests.Daemon;

namespace Causeway.Tests.Server;

/// <summary>Requests that nobody waits for gather before a thread is woken for them.</summary>
public sealed class GatheringTests
{
    [Fact]
    public void While_many_come_it_goes_on_gathering()
    {
        var gathering = new Gathering(isOn: true);
        for (int count = 10; count < 1000; count += 10)
        {
            Assert.True(gathering.TryBegin(count));
        }
    }

    [Fact]
    public void When_nothing_comes_it_waits_to_be_woken()
    {
        var gathering = new Gathering(isOn: true);
        Assert.True(gathering.TryBegin(1));
        Assert.False(gathering.TryBegin(1));
        Assert.False(gathering.TryBegin(1));
    }

    [Fact]
    public void For_single_requests_it_gathers_less_and_less_and_learns_again()
    {
        var gathering = new Gathering(isOn: true);
        int begun = 0;
        int count = 0;
        for (int i = 0; i < 10_000; i++)
        {
            begun += gathering.TryBegin(++count) ? 1 : 0;
            // What it is asked when the time was for nothing.
            gathering.TryBegin(count);
        }

        Assert.InRange(begun, 2, 20);
        int rounds = 0;
        for (int successes = 0; successes < 20; rounds++)
        {
            successes = gathering.TryBegin(count += 100) ? successes + 1 : 0;
        }

        Assert.InRange(rounds, 20, 10_000);
    }

    [Fact]
    public void Queues_whose_requests_somebody_waits_for_never_gather()
    {
        var gathering = new Gathering(isOn: false);
        Assert.False(gathering.TryBegin(1000));
        Assert.False(gathering.TryBegin(2000));
    }

    [Fact]
    public void What_is_forgotten_while_requests_gather_is_forgotten_all_the_same()
    {
        using var share = new TemporaryDirectory();
        using Share opened = Share.Open(new PassthroughOptions { SharedDirectory = share.Path });
        using var fileSystem = new PassthroughFileSystem(opened);
        using var loopback = new Loopback(fileSystem);
        using VirtioFsDriver driver = loopback.Connect();
        var client = new FuseClient(driver);
        Assert.False(client.Initialize().IsError);
        const int Files = 50;
        const int Rounds = 40;
        for (int i = 0; i < Files; i++)
        {
            File.WriteAllBytes(share.File($"f{i}"), []);
        }

        for (int round = 0; round < Rounds; round++)
        {
            for (int i = 0; i < Files; i++)
            {
                NodeEntry entry = client.Lookup(NodeId.Root, $"f{i}").Value;
                client.Forget(entry.NodeId, 1);
            }
        }

        Assert.True(SpinWait.SpinUntil(() => fileSystem.Figures.Nodes == 0, TimeSpan.FromSeconds(30)));
    }
}
