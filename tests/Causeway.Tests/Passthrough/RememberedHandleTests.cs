using System.Runtime.InteropServices;
using Causeway.Fuse;
using Causeway.Linux;
using Causeway.Passthrough;
using CsCheck;

namespace Causeway.Tests.Passthrough;

/// <summary>Handles of what the guest has forgotten: alone, from many threads, and through the file system.</summary>
public sealed class RememberedHandleTests
{
    // The smallest there is: a page of places.
    private const uint FewNodes = 16;

    private static readonly Gen<(int Kind, int Object, int Version)[]> s_steps =
        Gen.Select(Gen.Int[0, 3], Gen.Int[0, 100], Gen.Int[0, 3]).Array[0, 500];

    [Fact]
    public void What_is_found_is_what_was_kept_last() => s_steps.Sample(
        steps =>
        {
            using var table = new RememberedHandles(FewNodes, TimeProvider.System);
            var kept = new Dictionary<int, int>();
            foreach ((int kind, int number, int version) in steps)
            {
                if (kind == 0)
                {
                    table.Remove(KeyOf(number));
                    kept.Remove(number);
                    Assert.False(table.TryFind(KeyOf(number), out _));
                }
                else if (kind == 1)
                {
                    Keep(table, number, version);
                    kept[number] = version;
                    Assert.True(table.TryFind(KeyOf(number), out KernelFileHandle now));
                    AssertIs(number, version, ref now);
                }
                else if (table.TryFind(KeyOf(number), out KernelFileHandle handle))
                {
                    AssertIs(number, kept[number], ref handle);
                }
            }
        },
        iter: 300);

    [Fact]
    public void Each_part_of_a_key_matters()
    {
        using var table = new RememberedHandles(FewNodes, TimeProvider.System);
        var key = new NodeKey(1, 2, 3, 4);
        table.Add(key, 1, new byte[8]);
        Assert.True(table.TryFind(key, out _));
        Assert.False(table.TryFind(key with { Mount = 2 }, out _));
        Assert.False(table.TryFind(key with { Inode = 3 }, out _));
        Assert.False(table.TryFind(key with { BirthSeconds = 4 }, out _));
        Assert.False(table.TryFind(key with { BirthNanoseconds = 5 }, out _));
        table.Remove(key with { BirthNanoseconds = 5 });
        Assert.True(table.TryFind(key, out _));
    }

    [Fact]
    public void Handles_that_a_node_has_no_room_for_are_not_kept()
    {
        using var table = new RememberedHandles(FewNodes, TimeProvider.System);
        table.Add(KeyOf(1), 1, new byte[Node.InlineHandleLength]);
        Assert.True(table.TryFind(KeyOf(1), out _));
        table.Add(KeyOf(2), 1, new byte[Node.InlineHandleLength + 1]);
        Assert.False(table.TryFind(KeyOf(2), out _));
        table.Add(KeyOf(3), 1, default);
        Assert.False(table.TryFind(KeyOf(3), out _));
    }

    [Theory]
    [InlineData(FewNodes, 64)]
    [InlineData(60_000, 4096)]
    [InlineData(1_000_000, 65536)]
    public void There_are_as_many_places_as_are_used_up_to_a_limit(uint nodes, uint most)
    {
        using var table = new RememberedHandles(nodes, TimeProvider.System);
        Assert.InRange(table.PlaceCount, 1U, 4096U);
        for (int i = 0; i < 200_000; i++)
        {
            Keep(table, i, 0);
        }

        Assert.Equal(most, table.PlaceCount);
    }

    [Fact]
    public void Three_quarters_of_those_that_come_and_go_are_found()
    {
        using var table = new RememberedHandles(1_000_000, TimeProvider.System);
        const int objects = 10_000;
        int found = 0;
        for (int round = 0; round < 10; round++)
        {
            found = 0;
            for (int i = 0; i < objects; i++)
            {
                found += table.TryFind(KeyOf(i), out _) ? 1 : 0;
                Keep(table, i, 0);
            }
        }

        Assert.InRange(found, objects * 3 / 4, objects);
    }

    [Fact]
    public void Threads_that_meet_in_a_place_never_find_a_mixture()
    {
        using var table = new RememberedHandles(FewNodes, TimeProvider.System);
        // All in one place, or two.
        int[] numbers = [.. Enumerable.Range(0, 100_000).Where(i => (KeyOf(i).Hash & 63) < 2).Take(8)];
        int found = 0;
        long end = Environment.TickCount64 + 1500;
        Worker.RunAll(4, thread =>
        {
            var random = new Random(thread);
            while (Environment.TickCount64 < end)
            {
                for (int i = 0; i < 1000; i++)
                {
                    int number = numbers[random.Next(numbers.Length)];
                    switch (random.Next(16))
                    {
                        case 0:
                            table.Remove(KeyOf(number));
                            break;
                        case < 6:
                            Keep(table, number, random.Next(4));
                            break;
                        default:
                            if (table.TryFind(KeyOf(number), out KernelFileHandle handle))
                            {
                                AssertIs(number, handle.Type & 3, ref handle);
                                Interlocked.Increment(ref found);
                            }

                            break;
                    }
                }
            }
        });
        Assert.InRange(found, 1000, int.MaxValue);
    }

    [Fact]
    public void Only_objects_whose_birth_is_well_in_the_past_and_on_local_file_systems_are_old() => Worker.Run(() =>
    {
        var clock = new TestClock { Now = DateTimeOffset.FromUnixTimeMilliseconds(1_002_999) };
        using var table = new RememberedHandles(FewNodes, clock);
        Mount local = MountOf(hasLastingNumbers: true);
        Assert.False(table.WasOld(local, BornAt(1000)));
        Assert.False(table.WasOld(local, BornAt(2000)));
        clock.Now = DateTimeOffset.FromUnixTimeSeconds(1003);
        Assert.True(table.WasOld(local, BornAt(1000)));
        Assert.False(table.WasOld(local, BornAt(1001)));
        Assert.False(table.WasOld(MountOf(hasLastingNumbers: false), BornAt(1000)));
        Assert.False(table.WasOld(local, BornAt(0)));
        StatxBuffer unknown = BornAt(1000);
        unknown.Mask = StatxMask.Basic;
        Assert.False(table.WasOld(local, unknown));
    });

    [Fact]
    public void A_clock_that_was_set_back_is_noticed() => Worker.Run(() =>
    {
        var clock = new TestClock { Now = DateTimeOffset.FromUnixTimeSeconds(2000) };
        using var table = new RememberedHandles(FewNodes, clock);
        Mount local = MountOf(hasLastingNumbers: true);
        Assert.True(table.WasOld(local, BornAt(1000)));
        clock.Now = DateTimeOffset.FromUnixTimeSeconds(1000);
        int mistaken = 0;
        for (int i = 0; i < 1000; i++)
        {
            mistaken += table.WasOld(local, BornAt(999)) ? 1 : 0;
        }

        Assert.InRange(mistaken, 0, 64);
    });

    [Theory, EveryMode]
    public void What_was_old_when_it_was_looked_up_is_remembered_and_nothing_else(InodeFileHandles handles, string place) =>
        Worker.Run(() =>
        {
            using HostDirectory host = new HostDirectory(place).Fill();
            TestClock clock = TestClock.Stopped;
            using var guest = new Guest(host.Options with { FileHandles = handles, Clock = clock });
            Assert.False(IsRememberedAfterForget());
            clock.Now += TimeSpan.FromMinutes(1);
            Assert.Equal(handles == InodeFileHandles.Prefer, IsRememberedAfterForget());
            // About the host, and as true for the next session.
            Assert.Equal(Errno.Success, Guest.Done(guest.FileSystem.InitializeAsync(guest.Negotiation)));
            Assert.Equal(handles == InodeFileHandles.Prefer, guest.FileSystem.Remembered.TryFind(HostKey(host["f"]), out _));
            Assert.Equal(Errno.Success, guest.GetAttr(guest.Walk("f").NodeId).Error);

            bool IsRememberedAfterForget()
            {
                NodeId node = guest.Walk("f").NodeId;
                Assert.False(guest.FileSystem.Remembered.TryFind(HostKey(host["f"]), out _));
                guest.Forget(node);
                return guest.FileSystem.Remembered.TryFind(HostKey(host["f"]), out _);
            }
        });

    [Theory, EveryMode]
    public void Remembered_objects_are_the_same_in_every_way(InodeFileHandles handles, string place) => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory(place).Fill();
        using var guest = new Guest(host.Options with { FileHandles = handles, Clock = TestClock.Ahead });
        for (int round = 0; round < 3; round++)
        {
            NodeEntry file = guest.Walk("f");
            Assert.Equal(8192UL, Guest.Good(guest.GetAttr(file.NodeId)).Attributes.Size);
            HandleId handle = Guest.Good(guest.Open(file.NodeId)).Handle;
            Assert.Equal(8192, Guest.Good(guest.Read(file.NodeId, handle, 0, 10_000)));
            Assert.Equal(Errno.Success, guest.Release(file.NodeId, handle));
            NodeEntry directory = guest.Walk("d");
            Assert.Equal(1UL, Guest.Good(guest.Lookup(directory.NodeId, "x")).Attributes.Size);
            Assert.Equal(3, Guest.Good(Guest.Done(guest.FileSystem.ReadLinkAsync(
                guest.Walk("d/esc").NodeId, new byte[3], guest.Context))));
            guest.Forget(file.NodeId);
            foreach (string name in (ReadOnlySpan<string>)["d/x", "d/esc", "d"])
            {
                guest.Forget(guest.Walk(name).NodeId, 100);
            }

            Assert.Equal(0, guest.FileSystem.Figures.Nodes);
        }
    });

    [Theory, EveryMode]
    public void An_inode_number_that_is_used_again_later_gives_the_new_object(InodeFileHandles handles, string place) =>
        Worker.Run(() =>
        {
            using HostDirectory host = new HostDirectory(place).Fill();
            using var guest = new Guest(host.Options with { FileHandles = handles, Clock = TestClock.Ahead });
            int reused = 0;
            for (int round = 0; round < 50; round++)
            {
                File.WriteAllText(host["g"], "old");
                NodeEntry old = guest.Walk("g");
                NodeKey key = HostKey(host["g"]);
                guest.Forget(old.NodeId);
                guest.FileSystem.Settle();
                Assert.Equal(handles == InodeFileHandles.Prefer, guest.FileSystem.Remembered.TryFind(key, out _));
                File.Delete(host["g"]);
                AwaitTick(host, key);
                File.WriteAllText(host["g"], "newer");
                NodeEntry next = guest.Walk("g");
                reused += next.Attributes.Inode == key.Inode ? 1 : 0;
                Assert.Equal(5UL, Guest.Good(guest.GetAttr(next.NodeId)).Attributes.Size);
                guest.Forget(next.NodeId);
                guest.FileSystem.Settle();
                File.Delete(host["g"]);
            }

            TestContext.Current.TestOutputHelper?.WriteLine($"{reused} numbers were used again");
        });

    [Theory, EveryMode]
    public void A_stale_handle_is_dropped_and_the_next_lookup_succeeds(InodeFileHandles handles, string place) =>
        Worker.Run(() =>
        {
            using HostDirectory host = new HostDirectory(place).Fill();
            using var guest = new Guest(host.Options with { FileHandles = handles, Clock = TestClock.Ahead });
            guest.Forget(guest.Walk("f").NodeId);
            NodeKey key = HostKey(host["f"]);
            if (!guest.FileSystem.Remembered.TryFind(key, out KernelFileHandle handle))
            {
                Assert.Equal(InodeFileHandles.Never, handles);
                return;
            }

            // Of an earlier object with the same number and time of creation, as if the clock had been set back.
            byte[] bytes = KernelFileHandle.BytesOf(ref handle).ToArray();
            bytes[place == "/dev/shm" ? 0 : 4] ^= 1;
            guest.FileSystem.Remembered.Add(key, handle.Type, bytes);
            NodeEntry stale = guest.Walk("f");
            Assert.Equal(8192UL, stale.Attributes.Size);
            Assert.Equal(stale.NodeId, guest.Walk("f").NodeId);
            Assert.Equal(Errno.ESTALE, guest.GetAttr(stale.NodeId).Error);
            Assert.False(guest.FileSystem.Remembered.TryFind(key, out _));

            // As a Linux guest does after ESTALE, with the old node still there, and even if the handle is kept once more meanwhile.
            guest.FileSystem.Remembered.Add(key, handle.Type, bytes);
            NodeEntry found = guest.Walk("f");
            Assert.NotEqual(stale.NodeId, found.NodeId);
            guest.FileSystem.Remembered.Remove(key);
            Assert.Equal(8192UL, Guest.Good(guest.GetAttr(found.NodeId)).Attributes.Size);
            guest.Forget(stale.NodeId, 2);
            Assert.False(guest.FileSystem.Remembered.TryFind(key, out _));
            guest.Forget(found.NodeId);
            Assert.True(guest.FileSystem.Remembered.TryFind(key, out _));
            found = guest.Walk("f");
            Assert.Equal(8192UL, Guest.Good(guest.GetAttr(found.NodeId)).Attributes.Size);

            // And when it has forgotten the old node without having used it.
            guest.Forget(found.NodeId);
            guest.FileSystem.Remembered.Add(key, handle.Type, bytes);
            guest.Forget(guest.Walk("f").NodeId);
            stale = guest.Walk("f");
            Assert.Equal(Errno.ESTALE, guest.Open(stale.NodeId).Error);
            guest.Forget(stale.NodeId);
            Assert.Equal(Errno.Success, guest.GetAttr(guest.Walk("f").NodeId).Error);
        });

    // With a clock that takes everything for old, names change as fast as they can: the worst that may come of it is ESTALE for
    // one node, and then the right object.
    [Theory, EveryMode]
    public void Whatever_the_host_does_a_lookup_leads_to_the_object(InodeFileHandles handles, string place) => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory(place);
        using var guest = new Guest(host.Options with { FileHandles = handles, Clock = TestClock.Ahead });
        var random = new Random(7);
        var held = new List<NodeId>();
        int stale = 0;
        for (int step = 0; step < 4000; step++)
        {
            string name = $"{random.Next(6)}";
            switch (random.Next(8))
            {
                case 0:
                    File.Delete(host[name]);
                    break;
                case 1:
                    File.Delete(host[name]);
                    File.WriteAllText(host[name], "");
                    break;
                case 2 when File.Exists(host[name]):
                    File.Move(host[name], host[$"{random.Next(6)}"], overwrite: true);
                    break;
                case 3 when held.Count > 0:
                    int place = random.Next(held.Count);
                    guest.Forget(held[place]);
                    held.RemoveAt(place);
                    guest.FileSystem.Settle();
                    break;
                default:
                    Look(name);
                    break;
            }
        }

        TestContext.Current.TestOutputHelper?.WriteLine($"{stale} nodes were stale");

        void Look(string name)
        {
            Result<NodeEntry> found = guest.Lookup(NodeId.Root, name);
            Assert.Equal(File.Exists(host[name]) ? Errno.Success : Errno.ENOENT, found.Error);
            if (found.IsError)
            {
                return;
            }

            held.Add(found.Value.NodeId);
            if (random.Next(2) == 0)
            {
                // Then it has no descriptor, and its number may be used again.
                return;
            }

            Result<FuseAttrOut> seen = guest.GetAttr(found.Value.NodeId);
            if (seen.Error == Errno.ESTALE)
            {
                stale++;
                held.Add(guest.Walk(name).NodeId);
                seen = guest.GetAttr(held[^1]);
            }

            Assert.Equal(HostKey(host[name]).Inode, Guest.Good(seen).Attributes.Inode);
            Assert.Equal(1U, seen.Value.Attributes.LinkCount);
        }
    });

    // Until the file system's clock has moved on from the time of creation of an object.
    private static void AwaitTick(HostDirectory host, NodeKey key) => Assert.True(
        SpinWait.SpinUntil(
            () =>
            {
                File.WriteAllText(host["tick"], "");
                NodeKey now = HostKey(host["tick"]);
                File.Delete(host["tick"]);
                return (now.BirthSeconds, now.BirthNanoseconds) != (key.BirthSeconds, key.BirthNanoseconds);
            },
            10_000),
        "the clock of the file system stands still");

    // The shared directory's mount is the first.
    private static NodeKey HostKey(string path)
    {
        Files.Statx(
            Files.WorkingDirectory, Guest.Terminated(path), AtFlags.NoFollow, PassthroughFileSystem.LookupMask, out StatxBuffer status)
            .ThrowIfError("look");
        return new NodeKey(0, status.Inode, status.BirthTime.Seconds, status.BirthTime.Nanoseconds);
    }

    private static StatxBuffer BornAt(long seconds)
    {
        StatxBuffer status = default;
        status.Mask = StatxMask.Basic | StatxMask.BirthTime;
        status.BirthTime.Seconds = seconds;
        return status;
    }

    private static Mount MountOf(bool hasLastingNumbers) => new()
    {
        Id = 1,
        Device = 1,
        Index = 0,
        FileSystem = 1,
        Descriptor = -1,
        IsNetwork = false,
        HasLastingNumbers = hasLastingNumbers,
        UsesHandles = true,
    };

    private static NodeKey KeyOf(int number) => new((ushort)(number % 3), (ulong)number, number + 1, (uint)number);

    // Type, length and every byte follow from object and version.
    private static void Keep(RememberedHandles table, int number, int version) =>
        table.Add(KeyOf(number), (number << 2) | version, BytesOf(number, version));

    private static void AssertIs(int number, int version, ref KernelFileHandle handle)
    {
        Assert.Equal((number << 2) | version, handle.Type);
        Assert.True(KernelFileHandle.BytesOf(ref handle).SequenceEqual(BytesOf(number, version)), "a mixture of handles");
    }

    private static ReadOnlySpan<byte> BytesOf(int number, int version)
    {
        Span<int> bytes = new int[version % 2 == 0 ? 6 : 3];
        bytes.Fill((number << 2) | version);
        return MemoryMarshal.AsBytes(bytes);
    }
}
