using Causeway.Virtio;
using CsCheck;

namespace Causeway.Tests.Virtio;

/// <summary>Random programs for both halves of a packed queue, each step compared with a model and with the slow ring.</summary>
public sealed class PackedQueuePropertyTests
{
    private enum Step
    {
        Add,
        AddMore,
        Kick,
        Pop,
        PopAndPutBack,
        Complete,
        CompleteAnother,
        Call,
        Take,
        ArmDevice,
        ArmDeviceLate,
        DisarmDevice,
        ArmDriver,
        DisarmDriver,
    }

    [Fact]
    public void Both_halves_agree_with_the_specification_whatever_they_do()
    {
        // Sizes that are no power of two, too.
        Gen<(int, ulong)> genShape = Gen.Select(Gen.Int[1, 21], Gen.ULong[0, 3]);
        Gen<(Step, int)[]> genProgram = Gen.Select(Gen.Enum<Step>(), Gen.Int).Array[1, 200];

        Gen.Select(genShape, genProgram).Sample(
            (shape, program) =>
            {
                using var rig = new PackedQueueRig(new(shape.Item1, (QueueFeatures)(shape.Item2 << 28), IndirectTableEntries: 8));
                var model = new Model(rig);
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
    public void Chains_come_back_in_order_over_many_laps(QueueFeatures features)
    {
        using var rig = new PackedQueueRig(new(13, features, IndirectTableEntries: 4));
        var chain = new DescriptorChain();
        GuestRange[] readable = [new(rig.Buffers, 40), new(new(rig.Buffers.Value + 100), 8)];
        GuestRange[] writable = [new(new(rig.Buffers.Value + 200), 16)];
        var posted = new Queue<ushort>();
        uint completed = 0;
        for (int round = 0; round < 20_000; round++)
        {
            for (int i = 0; i < 4; i++)
            {
                Assert.True(rig.Driver.TryAdd(readable, writable, out ushort id));
                posted.Enqueue(id);
            }

            uint taken = completed;
            while (rig.Device.TryPop(chain) == PopResult.Popped)
            {
                rig.Device.Push(chain, completed++ % 17);
            }

            while (rig.Driver.TryTake(out ushort id, out uint written) == TakeResult.Taken)
            {
                Assert.Equal(posted.Dequeue(), id);
                Assert.Equal(taken++ % 17, written);
            }

            Assert.Empty(posted);
        }

        Assert.Equal(80_000u, completed);
    }

    /// <summary>What the queue ought to hold, and the steps that change it. Places are counted without end.</summary>
    private sealed class Model(PackedQueueRig rig)
    {
        private readonly Queue<Posted> _offered = [];
        private readonly List<(Posted Posted, DescriptorChain Chain)> _popped = [];
        private readonly Queue<(Posted Posted, uint Written)> _returned = [];
        private long _offeredTo;
        private long _kickedTo;
        private long _poppedTo;
        private long _returnedTo;
        private long _calledTo;
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
                    Assert.Equal(rig.Oracle.DeviceWantsKick(_kickedTo, _offeredTo), rig.Driver.NeedsKick());
                    _kickedTo = _offeredTo;
                    break;
                case Step.Pop:
                    Pop(isKept: true);
                    break;
                case Step.PopAndPutBack:
                    Pop(isKept: false);
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
                case Step.ArmDeviceLate:
                    int count = random.Next(rig.Driver.Size);
                    bool isLate = _offeredTo - _poppedTo <= count || !rig.Features.HasFlag(QueueFeatures.EventIndex);
                    Assert.Equal(isLate, rig.Device.ArmNotificationsAfter(count));
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
            Assert.Equal(_popped.Sum(popped => popped.Posted.Slots), rig.Device.InFlight);
            Assert.Equal(Place(_poppedTo) | (Place(_returnedTo) << 16), rig.Device.Base);
        }

        /// <summary>Lets everything go its way to the end: nothing may be lost and all descriptors are free.</summary>
        public void Finish()
        {
            while (Pop(isKept: true))
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
            Assert.Equal(_offeredTo, _returnedTo);
        }

        // Slot and wrap counter as SET_VRING_BASE has them.
        private uint Place(long place) =>
            (uint)(place % rig.Driver.Size) | (place / rig.Driver.Size % 2 == 0 ? 0x8000u : 0u);

        private void Add(Random random)
        {
            int readableCount = random.Next(0, 5);
            int writableCount = random.Next(readableCount == 0 ? 1 : 0, 5);
            GuestRange[] readable = Buffers(random, readableCount);
            GuestRange[] writable = Buffers(random, writableCount);
            int count = readableCount + writableCount;
            bool isIndirect = rig.Features.HasFlag(QueueFeatures.IndirectDescriptors) && random.Next(3) > 0;
            int needed = isIndirect ? 1 : count;
            int free = rig.Driver.FreeDescriptors;

            bool isAdded = rig.Driver.TryAdd(readable, writable, isIndirect ? 0 : count, out ushort id);
            Assert.Equal(needed <= free, isAdded);
            if (isAdded)
            {
                Assert.Equal(free - needed, rig.Driver.FreeDescriptors);
                _offered.Enqueue(new Posted(id, needed, readable, writable));
                Assert.True(rig.Oracle.IsAvailable(_offeredTo));
                _offeredTo += needed;
            }
        }

        // Far enough from each other that none are joined.
        private GuestRange[] Buffers(Random random, int count) =>
        [
            .. Enumerable.Range(0, count).Select(i => new GuestRange(
                new GuestAddress(rig.Buffers.Value + ((ulong)random.Next(0, 100) * 512)), (ulong)random.Next(1, 400))),
        ];

        private bool Pop(bool isKept)
        {
            var chain = new DescriptorChain();
            PopResult result = rig.Device.TryPop(chain);
            if (_offered.Count == 0)
            {
                Assert.Equal(PopResult.Empty, result);
                return false;
            }

            Posted posted = _offered.Peek();
            Assert.Equal(PopResult.Popped, result);
            Assert.Equal(posted.Id, chain.HeadIndex);

            (List<(GuestRange Range, bool IsWritable)> buffers, ushort id, int slots) = rig.Oracle.Chain(_poppedTo);
            Assert.Equal((posted.Id, posted.Slots), (id, slots));
            Assert.Equal(
                [.. posted.Readable.Select(range => (range, false)), .. posted.Writable.Select(range => (range, true))], buffers);
            Assert.Equal(posted.Readable.Sum(range => (long)range.Length), chain.Readable.Length);
            Assert.Equal(posted.Writable, chain.WritableRanges.ToArray());
            if (!isKept)
            {
                rig.Device.PutBack(chain);
                return true;
            }

            _offered.Dequeue();
            _poppedTo += slots;
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
            Assert.True(rig.Oracle.IsUsed(_returnedTo));
            Assert.Equal((posted.Id, written), rig.Oracle.UsedDescriptor(_returnedTo));
            _returnedTo += posted.Slots;
            _returned.Enqueue((posted, written));
        }

        private void Call()
        {
            bool expected = rig.Oracle.DriverWantsCall(_calledTo, _returnedTo);
            if (_isFirstCall && _calledTo != _returnedTo)
            {
                // Any place may be the one that the driver waits for.
                _isFirstCall = false;
                expected |= rig.Oracle.DriverWantsCall(_calledTo, _calledTo + (2 * rig.Driver.Size));
            }

            _calledTo = _returnedTo;
            Assert.Equal(expected, rig.Device.NeedsCall());
        }

        private bool Take()
        {
            TakeResult result = rig.Driver.TryTake(out ushort id, out uint written);
            if (_returned.Count == 0)
            {
                Assert.Equal(TakeResult.Empty, result);
                return false;
            }

            (Posted posted, uint expected) = _returned.Dequeue();
            Assert.Equal(TakeResult.Taken, result);
            Assert.Equal((posted.Id, expected), (id, written));
            return true;
        }
    }

    private sealed record Posted(ushort Id, int Slots, GuestRange[] Readable, GuestRange[] Writable);
}
