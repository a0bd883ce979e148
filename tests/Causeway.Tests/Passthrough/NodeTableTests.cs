using Causeway.Fuse;
using Causeway.Linux;
using Causeway.Passthrough;
using CsCheck;

namespace Causeway.Tests.Passthrough;

/// <summary>The table of nodes against a dictionary, alone and from many threads.</summary>
public sealed unsafe class NodeTableTests
{
    private static readonly Gen<(int Kind, int Object, int Count)[]> s_steps =
        Gen.Select(Gen.Int[0, 3], Gen.Int[0, 40], Gen.Int[1, 3]).Array[0, 400];

    [Fact]
    public void A_node_is_24_bytes_of_handle_and_72_of_the_rest() => Assert.Equal(96, sizeof(Node));

    [Fact]
    public void The_table_agrees_with_a_dictionary() => s_steps.Sample(
        steps =>
        {
            using var table = new NodeTable(1 << 16);
            var counts = new Dictionary<int, (NodeId Id, long Count)>();
            var gone = new List<NodeId>();
            foreach ((int kind, int number, int count) in steps)
            {
                KernelFileHandle handle = HandleOf(number);
                if (kind <= 1)
                {
                    Node* node = table.FindOrAdd(KeyOf(number), 0x8000, ref handle, Node.NoDescriptor, out bool isNew);
                    Assert.Equal(!counts.ContainsKey(number), isNew);
                    NodeId id = NodeTable.IdOf(table.IndexOf(node), node->Generation);
                    if (!isNew)
                    {
                        Assert.Equal(counts[number].Id, id);
                    }

                    counts[number] = (id, isNew ? 1 : counts[number].Count + 1);
                }
                else if (counts.TryGetValue(number, out (NodeId Id, long Count) known))
                {
                    Node* node = table.Resolve(known.Id);
                    Assert.True(node != null);
                    bool isGone = table.RemoveLookups(node, (ulong)count);
                    Assert.Equal(known.Count <= count, isGone);
                    counts[number] = (known.Id, known.Count - count);
                    if (isGone)
                    {
                        table.Free(table.IndexOf(node));
                        counts.Remove(number);
                        gone.Add(known.Id);
                    }
                }
            }

            Assert.Equal(counts.Count, table.LiveCount);
            foreach ((int number, (NodeId id, long count)) in counts)
            {
                Node* node = table.Resolve(id);
                KernelFileHandle handle = HandleOf(number);
                Assert.True(node != null);
                Assert.Equal(count, node->LookupCount);
                Assert.True(table.HasHandle(node, ref handle));
                // Objects 0 to 9 share a key; only their handles differ.
                Assert.True(number < 10 ? table.Find(KeyOf(number)) != null : table.Find(KeyOf(number)) == node);
            }

            Assert.All(gone, id => Assert.True(table.Resolve(id) == null));
        },
        iter: 300);

    [Fact]
    public void The_table_grows_and_finds_everything_and_is_small()
    {
        const int count = 1_000_000;
        using var table = new NodeTable();
        for (int i = 0; i < count; i++)
        {
            KernelFileHandle handle = ShortHandleOf(i);
            Assert.True(table.FindOrAdd(KeyOf(i + 10), 0x8000, ref handle, Node.NoDescriptor, out bool isNew) != null);
            Assert.True(isNew);
        }

        for (int i = 0; i < count; i += 7)
        {
            Node* node = table.Find(KeyOf(i + 10));
            KernelFileHandle handle = ShortHandleOf(i);
            Assert.True(node != null && table.HasHandle(node, ref handle));
        }

        Assert.Equal(count, table.LiveCount);
        Assert.InRange(table.CommittedBytes, 96L * count, 110L * count);
    }

    [Fact]
    public void A_full_table_says_so_and_recovers()
    {
        using var table = new NodeTable(100);
        int added = 0;
        for (int i = 0; i < 200; i++)
        {
            KernelFileHandle handle = HandleOf(i);
            added += table.FindOrAdd(KeyOf(i), 0x8000, ref handle, Node.NoDescriptor, out _) != null ? 1 : 0;
        }

        Assert.Equal(98, added);
        Node* node = table.At(2);
        Assert.True(table.RemoveLookups(node, 1));
        table.Free(2);
        KernelFileHandle last = HandleOf(1000);
        Assert.True(table.FindOrAdd(KeyOf(1000), 0x8000, ref last, Node.NoDescriptor, out _) != null);
    }

    [Fact]
    public void Only_handles_that_last_are_remembered_and_the_next_node_of_a_slot_begins_without()
    {
        using var table = new NodeTable(100);
        using var remembered = new RememberedHandles(100, TimeProvider.System);
        KernelFileHandle handle = ShortHandleOf(1);
        for (int number = 20; number < 22; number++)
        {
            Node* node = table.FindOrAdd(KeyOf(number), 0x8000, ref handle, Node.NoDescriptor, out _);
            Assert.Equal(2U, table.IndexOf(node));
            Assert.Equal(0, node->IsHandleLasting);
            node->IsHandleLasting = (byte)(number == 20 ? 1 : 0);
            Assert.True(table.RemoveLookups(node, 1));
            table.Remember(node, remembered);
            Assert.Equal(number == 20, remembered.TryFind(KeyOf(number), out _));
            table.Free(2);
        }
    }

    [Theory, EveryMode]
    public void Lookups_and_forgets_from_many_threads_leave_nothing(InodeFileHandles handles, string place) =>
        Worker.Run(() =>
        {
            using HostDirectory host = new HostDirectory(place);
            const int files = 300;
            for (int i = 0; i < files; i++)
            {
                File.WriteAllText(host[$"{i}"], $"{i}");
            }

            using var guest = new Guest(host.Options with { FileHandles = handles, MaxDescriptors = 1000, Clock = TestClock.Ahead });
            FileName[] names = [.. Enumerable.Range(0, files).Select(i => Guest.Name($"{i}"))];
            var inodes = new ulong[files];
            Worker.RunAll(8, thread =>
            {
                var random = new Random(thread);
                var context = new RequestContext();
                var held = new Dictionary<int, (NodeId Id, ulong Count)>();
                for (int round = 0; round < 3000; round++)
                {
                    int file = random.Next(files);
                    if (held.TryGetValue(file, out (NodeId Id, ulong Count) known) && random.Next(2) == 0)
                    {
                        FuseAttrOut attributes = Guest.Good(Guest.Done(
                            guest.FileSystem.GetAttrAsync(known.Id, default, context)));
                        Assert.Equal(Volatile.Read(ref inodes[file]), attributes.Attributes.Inode);
                        guest.FileSystem.Forget(known.Id, known.Count);
                        held.Remove(file);
                        continue;
                    }

                    NodeEntry entry = Guest.Good(Guest.Done(
                        guest.FileSystem.LookupAsync(NodeId.Root, names[file], context)));
                    ulong inode = Interlocked.CompareExchange(ref inodes[file], entry.Attributes.Inode, 0);
                    Assert.True(inode == 0 || inode == entry.Attributes.Inode);
                    if (known.Count > 0)
                    {
                        Assert.Equal(known.Id, entry.NodeId);
                    }

                    held[file] = (entry.NodeId, known.Count + 1);
                }

                foreach ((NodeId id, ulong count) in held.Values)
                {
                    guest.FileSystem.Forget(id, count);
                }
            });
            guest.FileSystem.Settle();
            guest.FileSystem.Settle();
            Assert.Equal((0L, 0, 0), (
                guest.FileSystem.Figures.Nodes, guest.FileSystem.Figures.Descriptors, guest.FileSystem.Figures.Pinned));
        });

    // Every third object has a handle too long for the node itself.
    private static KernelFileHandle HandleOf(int number)
    {
        KernelFileHandle handle = default;
        byte[] bytes = new byte[number % 3 == 0 ? 100 : 12];
        BitConverter.TryWriteBytes(bytes, number);
        handle.Set(1, bytes);
        return handle;
    }

    private static KernelFileHandle ShortHandleOf(int number)
    {
        KernelFileHandle handle = default;
        Span<byte> bytes = stackalloc byte[8];
        BitConverter.TryWriteBytes(bytes, number);
        handle.Set(1, bytes);
        return handle;
    }

    private static NodeKey KeyOf(int number) => number < 10 ? new(1, 5, 7, 9) : new(2, (ulong)number, number, 0);
}
