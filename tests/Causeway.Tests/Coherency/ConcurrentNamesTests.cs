using Causeway.Fuse;
using Causeway.Linux;
using Causeway.Passthrough;
using Causeway.Tests.Passthrough;

namespace Causeway.Tests.Coherency;

/// <summary>
/// Guests that make, link, rename, exchange and remove the same few names at the same time: whatever a change hits, its words
/// have moved. Looked at when all is quiet, because then the truth can be asked for.
/// </summary>
public class ConcurrentNamesTests
{
    private const int Guests = 3;
    private const int Rounds = 150;
    private const int MaxKept = 1000;

    private static readonly string[] s_names = ["a", "b", "c", "d"];

    [Fact]
    public void What_is_current_when_all_is_quiet_is_true() => Worker.Run(() =>
    {
        using var host = new HostDirectory();
        using Share share = Share.Open(host.Options with { VersionTable = VersionTableLayout.Default });
        using Guest keeper = Guest.On(share);
        Guest[] guests = [.. Enumerable.Range(0, Guests).Select(_ => Guest.On(share))];
        try
        {
            ChangeAndCheck(guests, keeper);
        }
        finally
        {
            foreach (Guest guest in guests)
            {
                guest.Dispose();
            }
        }
    });

    private static void ChangeAndCheck(Guest[] guests, Guest keeper)
    {
        VersionTable table = keeper.FileSystem.Versions!;
        var kept = new List<Kept>();
        int accepted = 0;
        // More where the keeper gets no processor while the others change, and so has little that is current.
        for (int round = 0; round < Rounds || (accepted <= Rounds && round < 100 * Rounds); round++)
        {
            int changing = guests.Length;
            Worker.RunAll(Guests + 1, index =>
            {
                if (index == Guests)
                {
                    // Learns while the others change.
                    while (Volatile.Read(ref changing) > 0)
                    {
                        kept.RemoveRange(0, kept.Count < MaxKept ? 0 : MaxKept / 2);
                        Learn(keeper, kept);
                    }

                    return;
                }

                Change(guests[index], new Random((round * Guests) + index));
                Interlocked.Decrement(ref changing);
            });
            foreach (Kept item in kept.Where(item => item.IsCurrent(table)))
            {
                accepted++;
                Assert.True(item.Value == item.Ask(), $"round {round}: {item.What} is {item.Ask()}, kept {item.Value}");
            }

            kept.Clear();
            Learn(keeper, kept);
        }

        Assert.True(accepted > Rounds / 10, $"only {accepted} were current");
    }

    private static void Learn(Guest keeper, List<Kept> kept)
    {
        kept.Add(Kept.Listing(keeper, NodeId.Root));
        foreach (string name in s_names)
        {
            kept.Add(Kept.Name(keeper, NodeId.Root, name));
            if (Kept.Found(keeper, NodeId.Root, name) is { } found)
            {
                kept.Add(found);
            }
        }
    }

    private static void Change(Guest guest, Random random)
    {
        for (int i = 0; i < 40; i++)
        {
            string name = s_names[random.Next(s_names.Length)];
            string other = s_names[random.Next(s_names.Length)];
            switch (random.Next(6))
            {
                case 0:
                    Result<FuseCreateOut> created = guest.Create(NodeId.Root, name);
                    if (!created.IsError)
                    {
                        guest.Release(created.Value.Entry.NodeId, created.Value.Open.Handle);
                    }

                    break;
                case 1:
                    guest.Unlink(NodeId.Root, name);
                    break;
                case 2:
                    guest.Rename(NodeId.Root, name, NodeId.Root, other);
                    break;
                case 3:
                    guest.Rename(NodeId.Root, name, NodeId.Root, other, RenameFlags.Exchange);
                    break;
                case 4:
                    Result<NodeEntry> found = guest.Lookup(NodeId.Root, name);
                    if (!found.IsError && found.Value.NodeId != NodeId.None)
                    {
                        guest.Link(found.Value.NodeId, NodeId.Root, other);
                    }

                    break;
                default:
                    Result<NodeEntry> target = guest.Lookup(NodeId.Root, name);
                    if (!target.IsError && target.Value.NodeId != NodeId.None)
                    {
                        guest.SetAttr(
                            target.Value.NodeId, new FuseSetAttrIn { Valid = SetAttrValid.Mode, Mode = (uint)random.Next(0x1ff) });
                    }

                    break;
            }
        }
    }
}
