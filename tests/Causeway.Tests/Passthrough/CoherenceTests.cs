using Causeway.Fuse;
using Causeway.Linux;
using Causeway.Passthrough;

namespace Causeway.Tests.Passthrough;

/// <summary>passthrough.md 7.15, as far as it needs no guest kernel.</summary>
public sealed class CoherenceTests
{
    [Fact]
    public void Records_appended_by_two_guests_and_the_host_are_all_there() => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory().Fill();
        File.WriteAllText(host["log"], "");
        const int Records = 300;
        Worker.RunAll(4, number =>
        {
            using var guest = new Guest(host.Options);
            NodeId log = guest.Walk("log").NodeId;
            HandleId handle = Guest.Good(guest.Open(log, OpenFlags.WriteOnly | OpenFlags.Append)).Handle;
            for (int i = 0; i < Records; i++)
            {
                byte[] record = System.Text.Encoding.ASCII.GetBytes($"{number:0} {i:000}\n");
                // The offset is what the guest believes to be the end.
                Assert.Equal(6, Guest.Good(guest.Write(log, handle, 0, record, OpenFlags.WriteOnly | OpenFlags.Append)));
            }

            Assert.Equal(Errno.Success, guest.Release(log, handle));
        });

        string[] lines = File.ReadAllLines(host["log"]);
        Assert.Equal(4 * Records, lines.Length);
        Assert.Equal(4 * Records, lines.Distinct().Count());
    });

    [Fact]
    public void A_name_made_on_the_host_is_there_at_the_next_look_whatever_was_said_before() => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory().Fill();
        using var guest = new Guest(host.Options with { NegativeLifetime = TimeSpan.FromSeconds(2.5) });
        NodeEntry missing = Guest.Good(guest.Lookup(NodeId.Root, "later"));
        Assert.Equal((0UL, 2UL, 500_000_000u), (missing.NodeId.Value, missing.EntryLifetimeSeconds, missing.EntryLifetimeNanoseconds));

        File.WriteAllText(host["later"], "x");

        Assert.NotEqual(0UL, Guest.Good(guest.Lookup(NodeId.Root, "later")).NodeId.Value);
    });
}
