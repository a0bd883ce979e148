using Causeway.Linux;
using Causeway.Virtio;
using CsCheck;

namespace Causeway.Tests.Virtio;

/// <summary>Random programs for both halves, each step compared with a model and with the slow ring.</summary>
public sealed unsafe class SplitQueuePropertyTests
{
    private enum Step
    {
        Add,
        AddMore,
        Kick,
        Pop,
        PopAll,
        Complete,
        CompleteAnother,
        Call,
        Take,
        ArmDevice,
        DisarmDevice,
        ArmDriver,
        DisarmDriver,
    }

    [Fact]
    public void Both_halves_agree_with_the_specification_whatever_they_do()
    {
        Gen<(int, ulong, ushort)> genShape = Gen.Select(
            Gen.Int[1, 6], Gen.ULong[0, 3], Gen.OneOf(Gen.UShort, Gen.Const((ushort)0), Gen.UShort[65500, 65535]));
        Gen<(Step, int)[]> genProgram = Gen.Select(Gen.Enum<Step>(), Gen.Int).Array[1, 150];

        Gen.Select(genShape, genProgram).Sample(
            (shape, program) =>
            {
                var features = (QueueFeatures)(shape.Item2 << 28);
                using var rig = new QueueRig(new(1 << shape.Item1, features, IndirectTableEntries: 8), shape.Item3);
                var model = new Model(rig, shape.Item3);
                foreach ((Step step, int seed) in program)
                {
                    model.Run(step, seed);
                }

                model.Finish();
            },
            iter: 1000,
            threads: 1);
    }

    [Theory]
    [InlineData(QueueFeatures.None)]
    [InlineData(QueueFeatures.IndirectDescriptors)]
    [InlineData(QueueFeatures.EventIndex)]
    [InlineData(QueueFeatures.IndirectDescriptors | QueueFeatures.EventIndex)]
    public void Two_hundred_thousand_chains_come_back_in_order_over_several_wraps(QueueFeatures features)
    {
        using var rig = new QueueRig(new(16, features, IndirectTableEntries: 4));
        var chain = new DescriptorChain();
        GuestRange[] readable = [new(rig.Buffers, 40), new(new(rig.Buffers.Value + 100), 8)];
        GuestRange[] writable = [new(new(rig.Buffers.Value + 200), 16)];
        var posted = new Queue<ushort>();
        uint completed = 0;
        for (int round = 0; round < 50_000; round++)
        {
            for (int i = 0; i < 4; i++)
            {
                Assert.True(rig.Driver.TryAdd(readable, writable, out ushort head));
                posted.Enqueue(head);
            }

            rig.Driver.NeedsKick();
            while (rig.Device.TryPop(chain) == PopResult.Popped)
            {
                rig.Device.Push(chain, completed++ % 17);
            }

            rig.Device.NeedsCall();
            uint taken = completed - 4;
            while (rig.Driver.TryTake(out ushort head, out uint written) == TakeResult.Taken)
            {
                Assert.Equal(posted.Dequeue(), head);
                Assert.Equal(taken++ % 17, written);
            }

            Assert.Empty(posted);
        }

        Assert.Equal(200_000u, completed);
        Assert.Equal(200_000 % 65536, rig.Device.NextAvailable);
    }

    /// <summary>What the queue ought to hold, and the steps that change it.</summary>
    private sealed class Model(QueueRig rig, ushort start)
    {
        private readonly Queue<Posted> _offered = [];
        private readonly List<(Posted Posted, DescriptorChain Chain)> _popped = [];
        private readonly Queue<(Posted Posted, uint Written)> _returned = [];
        private readonly Stack<DescriptorChain> _spare = [];
        private ushort _offeredIndex = start;
        private ushort _kickedIndex = start;
        private ushort _returnedIndex = start;
        private ushort _calledIndex = start;
        private bool _isFirstCall = true;

        public void Run(Step step, int seed)
        {
            var random = new Random(seed);
            switch (step)
            {
                case Step.Add:
                case Step.AddMore:
                    Add(random);
                    break;
                case Step.Kick:
                    Kick();
                    break;
                case Step.Pop:
                    Pop();
                    break;
                case Step.PopAll:
                    while (Pop())
                    {
                    }

                    break;
                case Step.Complete:
                case Step.CompleteAnother:
                    Complete(random);
                    break;
                case Step.Call:
                    Call();
                    break;
                case Step.Take:
                    Take();
                    break;
                case Step.ArmDevice:
                    Assert.Equal(_offered.Count == 0, rig.Device.ArmNotifications());
                    break;
                case Step.DisarmDevice:
                    rig.Device.DisarmNotifications();
                    break;
                case Step.ArmDriver:
                    Assert.Equal(_returned.Count == 0, rig.Driver.ArmCalls());
                    break;
                default:
                    rig.Driver.DisarmCalls();
                    break;
            }

            Assert.Equal(_offered.Count > 0, rig.Device.HasAvailable);
            Assert.Equal(_popped.Count, rig.Device.InFlight);
        }

        /// <summary>Lets everything go its way to the end: nothing may be lost and all descriptors are free.</summary>
        public void Finish()
        {
            Kick();
            while (Pop())
            {
            }

            while (_popped.Count > 0)
            {
                Complete(new Random(1));
            }

            Call();
            while (Take())
            {
            }

            Assert.Equal(rig.Driver.Size, rig.Driver.FreeDescriptors);
            Assert.Equal(0, rig.Driver.Outstanding);
            Assert.Equal(rig.Device.NextAvailable, rig.Device.NextUsed);
        }

        private static List<GuestRange> RandomBuffers(Random random, QueueRig rig, int count)
        {
            var buffers = new List<GuestRange>();
            for (int i = 0; i < count; i++)
            {
                // Anywhere behind the queue, over the border of the two regions too, and sometimes right behind the last.
                ulong room = QueueRig.SecondBase + QueueRig.SecondSize - rig.Buffers.Value;
                uint size = (uint)random.Next(0, 3000);
                bool isNeighbour = i > 0 && random.Next(3) == 0 &&
                    buffers[i - 1].Address.Value + buffers[i - 1].Length + size <= rig.Buffers.Value + room;
                ulong address = isNeighbour
                    ? buffers[i - 1].Address.Value + buffers[i - 1].Length
                    : rig.Buffers.Value + (ulong)random.NextInt64((long)(room - size));
                buffers.Add(new GuestRange(new GuestAddress(address), size));
            }

            return buffers;
        }

        private void Add(Random random)
        {
            int readableCount = random.Next(0, 5);
            int writableCount = random.Next(readableCount == 0 ? 1 : 0, 5);
            List<GuestRange> readable = RandomBuffers(random, rig, readableCount);
            List<GuestRange> writable = RandomBuffers(random, rig, writableCount);
            int count = readableCount + writableCount;
            bool canUseTables = rig.Features.HasFlag(QueueFeatures.IndirectDescriptors) && count <= 8;
            int direct = canUseTables && random.Next(4) > 0 ? random.Next(0, count) : count;
            int needed = direct + (direct < count ? 1 : 0);
            int free = rig.Driver.FreeDescriptors;

            bool isAdded = rig.Driver.TryAdd([.. readable], [.. writable], direct, out ushort head);
            Assert.Equal(needed <= free, isAdded);
            if (isAdded)
            {
                Assert.Equal(free - needed, rig.Driver.FreeDescriptors);
                _offered.Enqueue(new Posted(head, readable, writable));
                Assert.Equal(++_offeredIndex, rig.Oracle.AvailableIndex);
            }
        }

        private void Kick()
        {
            bool expected = rig.Oracle.DeviceWantsKick(_kickedIndex, _offeredIndex);
            _kickedIndex = _offeredIndex;
            Assert.Equal(expected, rig.Driver.NeedsKick());
        }

        private bool Pop()
        {
            DescriptorChain chain = _spare.TryPop(out DescriptorChain? spare) ? spare : new DescriptorChain();
            PopResult result = rig.Device.TryPop(chain);
            if (_offered.Count == 0)
            {
                Assert.Equal(PopResult.Empty, result);
                _spare.Push(chain);
                return false;
            }

            Posted posted = _offered.Dequeue();
            Assert.Equal(PopResult.Popped, result);
            Assert.Equal(posted.Head, chain.HeadIndex);
            Assert.Equal(posted.Head, rig.Oracle.AvailableEntry((ushort)(rig.Device.NextAvailable - 1)));

            List<(GuestRange Range, bool IsWritable)> buffers = rig.Oracle.Chain(posted.Head);
            Assert.Equal(
                posted.Readable.Where(range => range.Length > 0),
                buffers.Where(buffer => !buffer.IsWritable).Select(buffer => buffer.Range));
            Assert.Equal(
                posted.Writable.Where(range => range.Length > 0),
                buffers.Where(buffer => buffer.IsWritable).Select(buffer => buffer.Range));
            Assert.Equal(HostPieces(posted.Readable), Flatten(chain.Readable));
            Assert.Equal(HostPieces(posted.Writable), Flatten(chain.Writable));
            _popped.Add((posted, chain));
            return true;
        }

        private void Complete(Random random)
        {
            if (_popped.Count == 0)
            {
                return;
            }

            int index = random.Next(_popped.Count);
            (Posted posted, DescriptorChain chain) = _popped[index];
            _popped.RemoveAt(index);
            uint written = (uint)random.NextInt64(chain.Writable.Length + 1);
            rig.Device.Push(chain, written);
            Assert.Equal((posted.Head, written), rig.Oracle.UsedEntry(_returnedIndex++));
            Assert.Equal(_returnedIndex, rig.Oracle.UsedIndex);
            _spare.Push(chain);
            _returned.Enqueue((posted, written));
        }

        private void Call()
        {
            bool expected = rig.Oracle.DriverWantsCall(_calledIndex, _returnedIndex);
            if (_isFirstCall && _calledIndex != _returnedIndex)
            {
                _isFirstCall = false;
                expected |= rig.Features.HasFlag(QueueFeatures.EventIndex);
            }

            _calledIndex = _returnedIndex;
            Assert.Equal(expected, rig.Device.NeedsCall());
        }

        private bool Take()
        {
            TakeResult result = rig.Driver.TryTake(out ushort head, out uint written);
            if (_returned.Count == 0)
            {
                Assert.Equal(TakeResult.Empty, result);
                return false;
            }

            (Posted posted, uint expected) = _returned.Dequeue();
            Assert.Equal(TakeResult.Taken, result);
            Assert.Equal((posted.Head, expected), (head, written));
            return true;
        }

        /// <summary>
        /// Where buffers are in this process, as maximal runs: cut at the border of the regions, joined where the guest's
        /// addresses and the process's both go on.
        /// </summary>
        private List<(nuint Start, nuint Length)> HostPieces(List<GuestRange> ranges)
        {
            var pieces = new List<(nuint Start, nuint Length)>();
            ulong guestEnd = 0;
            foreach (GuestRange range in ranges)
            {
                ulong address = range.Address.Value;
                ulong end = address + range.Length;
                while (address < end)
                {
                    bool isSecond = address >= QueueRig.SecondBase;
                    ulong pieceEnd = isSecond ? end : Math.Min(end, QueueRig.SecondBase);
                    byte* start = isSecond
                        ? rig.Second + (address - QueueRig.SecondBase)
                        : rig.Start + (address - QueueRig.Base);
                    nuint length = (nuint)(pieceEnd - address);
                    if (pieces.Count > 0 && guestEnd == address && pieces[^1].Start + pieces[^1].Length == (nuint)start)
                    {
                        pieces[^1] = (pieces[^1].Start, pieces[^1].Length + length);
                    }
                    else
                    {
                        pieces.Add(((nuint)start, length));
                    }

                    guestEnd = pieceEnd;
                    address = pieceEnd;
                }
            }

            return pieces;
        }

        private static List<(nuint Start, nuint Length)> Flatten(IoVectorList list)
        {
            var pieces = new List<(nuint, nuint)>();
            long sum = 0;
            foreach (IoVector vector in list.Vectors)
            {
                pieces.Add(((nuint)vector.Address, vector.Length));
                sum += (long)vector.Length;
            }

            Assert.Equal(list.Length, sum);
            return pieces;
        }
    }

    private sealed record Posted(ushort Head, List<GuestRange> Readable, List<GuestRange> Writable);
}
