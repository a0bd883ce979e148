// Every wait here has a deadline of its own, and tasks that use a device end before it does.
#pragma warning disable xUnit1051, xUnit1031, CA2012, CA2025

using System.Collections.Concurrent;
using System.Runtime.InteropServices;
using Causeway.Driver;
using Causeway.Fuse;
using Causeway.Linux;
using Causeway.VhostUser.Messages;
using Microsoft.Win32.SafeHandles;

namespace Causeway.Tests.Driver;

/// <summary>The raw request layer against devices that lie, stop or disappear (fuse-virtiofs reference, 6.4).</summary>
public sealed class HostileDeviceTests
{
    private static readonly TimeSpan s_deadline = TimeSpan.FromSeconds(60);

    public static TheoryData<string> Lies =>
    [
        "too short", "longer than written", "shorter than written", "wrong unique", "positive error", "error 512",
        "error with body",
    ];

    [Theory]
    [MemberData(nameof(Lies))]
    public async Task A_reply_that_breaks_the_protocol_fails_its_call_and_no_other(string lie)
    {
        bool isFirst = true;
        using var device = new ScriptedDevice((header, _) =>
        {
            Answer honest = Answer.Reply(header, new byte[104]);
            if (!isFirst)
            {
                return honest;
            }

            isFirst = false;
            byte[] bytes = honest.Bytes;
            switch (lie)
            {
                case "too short":
                    return honest with { Bytes = bytes[..8] };
                case "longer than written":
                    bytes[0]++;
                    return honest;
                case "shorter than written":
                    bytes[0]--;
                    return honest;
                case "wrong unique":
                    bytes[8] ^= 0xff;
                    return honest;
                case "positive error":
                    return Answer.Reply(header, [], error: 5);
                case "error 512":
                    return Answer.Reply(header, [], error: -512);
                default:
                    return Answer.Reply(header, new byte[104], error: -5);
            }
        });
        using VirtioFsTransport transport = device.Open();

        Assert.Equal(FuseReplyStatus.Malformed, (await GetAttrAsync(transport)).Status);
        Assert.Equal(1, transport.MalformedReplies);
        Assert.Equal(FuseReplyStatus.Answered, (await GetAttrAsync(transport)).Status);
        Assert.Null(transport.Loss);
    }

    [Theory]
    [InlineData("id out of range")]
    [InlineData("id not outstanding")]
    [InlineData("more than there was room for")]
    public async Task A_used_ring_that_lies_ends_the_device_and_every_pending_call(string lie)
    {
        int count = 0;
        using var device = new ScriptedDevice((header, _) => count++ == 0
            ? Answer.Hold
            : lie switch
            {
                "id out of range" => Answer.Reply(header, new byte[104]) with { UsedId = 0x10000 },
                "id not outstanding" => Answer.Reply(header, new byte[104]) with { UsedId = 77 },
                _ => Answer.Reply(header, new byte[104]) with { UsedLength = FuseCall.ControlBytes + 1 },
            });
        var lost = new TaskCompletionSource<VirtioFsDeviceException>(TaskCreationOptions.RunContinuationsAsynchronously);
        using VirtioFsTransport transport = device.Open(new VirtioFsTransportOptions { OnLost = lost.SetResult });

        Task<FuseReply> held = GetAttrAsync(transport);
        Task<FuseReply> liedTo = GetAttrAsync(transport);
        Assert.Equal(FuseReplyStatus.Lost, (await held.WaitAsync(s_deadline)).Status);
        Assert.Equal(FuseReplyStatus.Lost, (await liedTo.WaitAsync(s_deadline)).Status);
        Assert.Equal(DeviceFailure.BrokenQueue, (await lost.Task.WaitAsync(s_deadline)).Failure);
        Assert.Equal(FuseReplyStatus.Lost, (await GetAttrAsync(transport)).Status);
    }

    [Fact]
    public async Task A_daemon_that_dies_fails_every_pending_call()
    {
        using var device = new ScriptedDevice((_, _) => Answer.Hold);
        var lost = new TaskCompletionSource<VirtioFsDeviceException>(TaskCreationOptions.RunContinuationsAsynchronously);
        using VirtioFsTransport transport = device.Open(new VirtioFsTransportOptions { OnLost = lost.SetResult });
        Task<FuseReply>[] pending = [.. Enumerable.Range(0, 20).Select(_ => GetAttrAsync(transport))];
        Until(() => device.Requests.Count == 20);

        device.Die();
        Assert.All(
            await Task.WhenAll(pending).WaitAsync(s_deadline), reply => Assert.Equal(FuseReplyStatus.Lost, reply.Status));
        Assert.Equal(DeviceFailure.Disconnected, (await lost.Task.WaitAsync(s_deadline)).Failure);
        Assert.Equal(Errno.ENOTCONN, transport.Loss!.Error);
        Assert.Equal(0, transport.RentedCalls);
    }

    [Fact]
    public async Task What_comes_back_while_the_transport_is_disposed_of_keeps_no_thread_busy()
    {
        using var device = new ScriptedDevice((_, _) => Answer.Hold);
        VirtioFsTransport transport = device.Open();
        using var entered = new ManualResetEventSlim();
        using var leave = new ManualResetEventSlim();
        FuseCall call = transport.TryRentCall()!;
        RawRequests.Write(call, transport, FuseOpcode.GetAttr, NodeId.Root, RawRequests.NoArguments);
        call.Submit(0, (done, _) =>
        {
            done.Return();
            entered.Set();
            leave.Wait();
        });
        Task<FuseReply> second = GetAttrAsync(transport);
        Until(() => device.Requests.Count == 2);
        RequestId[] held = [.. device.Requests.Select(request => request.Header.Unique)];

        // The queue's thread is busy with the first reply when the second comes, and finds the queue closed afterwards.
        device.Release(held[0], header => Answer.Reply(header, new byte[104]));
        Assert.True(entered.Wait(s_deadline));
        device.Release(held[1], header => Answer.Reply(header, new byte[104]));
        Task disposing = Task.Run(transport.Dispose);
        Assert.Equal(FuseReplyStatus.Lost, (await second.WaitAsync(s_deadline)).Status);
        leave.Set();
        await disposing.WaitAsync(s_deadline);
    }

    [Fact]
    public async Task A_device_that_does_not_answer_counts_as_lost_after_the_timeout()
    {
        using var device = new ScriptedDevice((_, _) => Answer.Hold);
        using VirtioFsTransport transport = device.Open(
            new VirtioFsTransportOptions { ReplyTimeout = TimeSpan.FromSeconds(1) });
        Assert.Equal(FuseReplyStatus.Lost, (await GetAttrAsync(transport).WaitAsync(s_deadline)).Status);
        Assert.Equal(DeviceFailure.NotAnswering, transport.Loss!.Failure);
    }

    [Fact]
    public async Task Cancelling_stops_the_wait_asks_the_device_to_stop_and_gives_back_what_comes_late()
    {
        using var device = new ScriptedDevice((_, _) => Answer.Hold);
        using VirtioFsTransport transport = device.Open();
        using var cancellation = new CancellationTokenSource();
        var late = new TaskCompletionSource<FuseReply>(TaskCreationOptions.RunContinuationsAsynchronously);
        FuseCall call = transport.TryRentCall()!;
        RawRequests.Write(call, transport, FuseOpcode.GetAttr, NodeId.Root, RawRequests.NoArguments);
        ValueTask<FuseReply> reply = call.SubmitAsync(0, (_, answer) => late.SetResult(answer), cancellation.Token);
        Until(() => device.Requests.Count == 1);

        await cancellation.CancelAsync();
        Assert.Equal(FuseReplyStatus.Abandoned, (await reply).Status);
        Assert.Equal(1, transport.RentedCalls);

        // INTERRUPT on the high-priority queue names the request.
        Until(() => device.Requests.Count == 2);
        (int queue, FuseInHeader header, byte[] arguments) = device.Requests.Last();
        RequestId target = device.Requests.First().Header.Unique;
        Assert.Equal((0, FuseOpcode.Interrupt), (queue, header.Opcode));
        Assert.Equal(target.Value, MemoryMarshal.Read<ulong>(arguments));

        device.Release(target, held => Answer.Reply(held, [], error: -4));
        Assert.Equal(Errno.EINTR, (await late.Task.WaitAsync(s_deadline)).Error);
        Until(() => transport.RentedCalls == 0);
    }

    [Fact]
    public async Task A_transport_refuses_to_be_disposed_of_by_a_completion_and_allows_it_when_the_device_is_lost()
    {
        using var device = new ScriptedDevice((header, _) => Answer.Reply(header, new byte[104]));
        var disposed = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        VirtioFsTransport? transport = null;
        transport = device.Open(new VirtioFsTransportOptions
        {
            OnLost = _ =>
            {
                transport!.Dispose();
                disposed.SetResult();
            },
        });
        var refused = new TaskCompletionSource<bool>(TaskCreationOptions.RunContinuationsAsynchronously);
        FuseCall call = transport.TryRentCall()!;
        RawRequests.Write(call, transport, FuseOpcode.GetAttr, NodeId.Root, RawRequests.NoArguments);
        call.Submit(0, (done, _) =>
        {
            try
            {
                transport.Dispose();
                refused.SetResult(false);
            }
            catch (InvalidOperationException)
            {
                refused.SetResult(true);
            }

            done.Return();
        });
        Assert.True(await refused.Task.WaitAsync(s_deadline));
        device.Die();
        await disposed.Task.WaitAsync(s_deadline);
    }

    [Fact]
    public void Forgets_go_to_the_high_priority_queue_many_in_one_message()
    {
        using var device = new ScriptedDevice((_, _) => Answer.Hold);
        using VirtioFsTransport transport = device.Open();

        transport.Forget(new FuseForgetOne { NodeId = new NodeId(5), LookupCount = 3 });
        Until(() => device.Requests.Count == 1);
        (int queue, FuseInHeader header, byte[] arguments) = device.Requests.Last();
        Assert.Equal((0, FuseOpcode.Forget, 5ul), (queue, header.Opcode, header.NodeId.Value));
        Assert.Equal(3ul, MemoryMarshal.Read<ulong>(arguments));

        FuseForgetOne[] many =
            [.. Enumerable.Range(0, 1000).Select(i => new FuseForgetOne { NodeId = new NodeId((ulong)i), LookupCount = 1 })];
        transport.Forget(many);
        Until(() => device.Requests.Skip(1).Sum(request => MemoryMarshal.Read<int>(request.Arguments)) == 1000);
        Assert.All(device.Requests.Skip(1), request => Assert.Equal(FuseOpcode.BatchForget, request.Header.Opcode));
        Assert.Equal(4, device.Requests.Count - 1);
    }

    [Fact]
    public void Notifications_reach_the_handler_and_what_is_none_is_ignored()
    {
        var seen = new BlockingCollection<(FuseNotifyCode Code, byte[] Payload)>();
        using var device = new ScriptedDevice((_, _) => Answer.Hold)
        {
            QueueCount = 3,
            DeviceFeatures = VirtioFeatures.Version1 | VirtioFeatures.FsNotification,
        };
        using VirtioFsTransport transport = device.Open(
            new VirtioFsTransportOptions { OnNotification = (code, payload) => seen.Add((code, payload.ToArray())) });
        Assert.True(transport.HasNotifications);
        Assert.Equal(1, transport.RequestQueueCount);

        // Too short; a length that lies; a reply to a request; an error that is none; then a real one, twice around the ring.
        device.Notify(new byte[7]);
        device.Notify(Notification(2, unique: 0, [1, 2, 3], lie: 1));
        device.Notify(Notification(2, unique: 9, [1, 2, 3]));
        device.Notify(Notification(-2, unique: 0, [1, 2, 3]));
        for (int i = 0; i < 200; i++)
        {
            device.Notify(Notification(2, unique: 0, [(byte)i]));
            Assert.True(seen.TryTake(out (FuseNotifyCode Code, byte[] Payload) one, s_deadline));
            Assert.Equal(FuseNotifyCode.InvalInode, one.Code);
            Assert.Equal([(byte)i], one.Payload);
        }
    }

    [Theory]
    [InlineData(1, 1u, "has 1 queues")]
    [InlineData(2, 0u, "configuration space")]
    public void A_device_that_is_no_virtio_fs_device_is_refused(int queues, uint announced, string message)
    {
        using var device = new ScriptedDevice((_, _) => Answer.Hold)
        {
            QueueCount = queues,
            Config = ScriptedDevice.MakeConfig("tag", announced),
        };
        VirtioFsDeviceException exception = Assert.Throws<VirtioFsDeviceException>(() => device.Open());
        Assert.Equal(DeviceFailure.NotVirtioFs, exception.Failure);
        Assert.Contains(message, exception.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_queue_count_out_of_proportion_is_cut_to_what_there_is()
    {
        using var device = new ScriptedDevice((_, _) => Answer.Hold)
        {
            QueueCount = 3,
            Config = ScriptedDevice.MakeConfig("tag", uint.MaxValue),
        };
        using VirtioFsTransport transport = device.Open(new VirtioFsTransportOptions { MaxRequestQueues = 100 });
        Assert.Equal(2, transport.RequestQueueCount);
    }

    [Theory]
    [InlineData("closes")]
    [InlineData("answers nonsense")]
    [InlineData("is silent")]
    public void A_socket_that_is_no_vhost_user_device_is_an_error_and_no_hang(string peer)
    {
        Sockets.Socketpair(SocketType.Stream, out int ours, out int theirs).ThrowIfError("socketpair");
        using var other = new SafeFileHandle(theirs, ownsHandle: true);
        switch (peer)
        {
            case "closes":
                other.Dispose();
                break;
            case "answers nonsense":
                Sockets.Sendmsg(theirs, "HTTP/1.1 400 Bad Request\r\n\r\n"u8, []).ThrowIfError("send");
                break;
            default:
                break;
        }

        VirtioFsDeviceException exception = Assert.Throws<VirtioFsDeviceException>(() => VirtioFsTransport.Open(
            new SafeFileHandle(ours, ownsHandle: true),
            new VirtioFsTransportOptions { SetUpTimeout = TimeSpan.FromMilliseconds(200) }));
        Assert.Equal(DeviceFailure.NotVirtioFs, exception.Failure);
        Assert.Contains("not a vhost-user device", exception.Message, StringComparison.Ordinal);
    }

    internal static byte[] Notification(int code, ulong unique, byte[] payload, int lie = 0)
    {
        byte[] bytes = new byte[16 + payload.Length];
        MemoryMarshal.Write(
            bytes, new FuseOutHeader { Length = (uint)(bytes.Length + lie), Error = code, Unique = new RequestId(unique) });
        payload.CopyTo(bytes, 16);
        return bytes;
    }

    internal static void Until(Func<bool> condition) =>
        Assert.True(SpinWait.SpinUntil(condition, s_deadline), "what was waited for did not happen");

    private static async Task<FuseReply> GetAttrAsync(VirtioFsTransport transport)
    {
        FuseCall call = transport.TryRentCall()!;
        RawRequests.Write(call, transport, FuseOpcode.GetAttr, NodeId.Root, RawRequests.NoArguments);
        FuseReply reply = await call.SubmitAsync(0);
        call.Return();
        return reply;
    }
}
