// Every wait here has a deadline of its own, and tasks that use a device end before it does.
#pragma warning disable xUnit1051, xUnit1031, CA2012, CA2025

using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Causeway.Driver;
using Causeway.Fuse;
using Causeway.Linux;
using Causeway.VhostUser.Messages;

namespace Causeway.Tests.Driver;

/// <summary>The client against a device whose replies have the right form and the wrong content.</summary>
public sealed class HostileClientTests
{
    private const uint FileMode644 = 0x81A4;
    private const uint Directory755 = 0x41ED;
    private static readonly TimeSpan s_deadline = TimeSpan.FromSeconds(60);

    public static TheoryData<string> Lies =>
    [
        "node 1", "no type", "negative size", "other type in GETATTR", "long WRITE", "link with a zero byte", "empty link",
        "name with a slash", "name with a zero byte", "empty name", "name beyond the end", "listing that stands still",
        "listed node 1", "xattr list without an end", "CREATE of a directory", "LSEEK backwards", "long copy",
        "lock that is none",
    ];

    [Theory]
    [MemberData(nameof(Lies))]
    public async Task A_lie_is_an_error_of_its_request_and_the_next_one_goes_on(string lie)
    {
        string current = lie;
        using var device = new ScriptedDevice((header, arguments) => Play(current, header, arguments));
        await using VirtioFsClient client = await OpenAsync(device);
        VirtioFsDeviceException exception = await Assert.ThrowsAsync<VirtioFsDeviceException>(
            () => ProvokeAsync(client, lie).WaitAsync(s_deadline));
        Assert.Equal((DeviceFailure.MalformedReply, Errno.EIO), (exception.Failure, exception.Error));

        current = "";
        Assert.Equal(5, (await client.GetStatusAsync("file").AsTask().WaitAsync(s_deadline)).Length);
        HostileDeviceTests.Until(() => client.Transport.RentedCalls == 0);
    }

    [Theory]
    [InlineData("version 8.0")]
    [InlineData("version 7.20")]
    [InlineData("flags that were not offered")]
    [InlineData("no writes")]
    [InlineData("an error")]
    [InlineData("8 bytes")]
    [InlineData("no answer")]
    public async Task A_device_that_answers_INIT_with_nonsense_is_refused(string answer)
    {
        using var device = new ScriptedDevice((header, _) => answer switch
        {
            "version 8.0" => Answer.Reply(header, Granted() with { Major = 8, Minor = 0 }),
            "version 7.20" => Answer.Reply(header, Granted() with { Minor = 20 }),
            "flags that were not offered" => Answer.Reply(header, Granted() with { Flags = 1u << 16 }),
            "no writes" => Answer.Reply(header, Granted() with { MaxWrite = 0 }),
            "an error" => Answer.Reply(header, [], error: -71),
            "8 bytes" => Answer.Reply(header, new byte[8]),
            _ => header.Opcode == FuseOpcode.Init ? Answer.Hold : Answer.Reply(header, []),
        });
        VirtioFsDeviceException exception = await Assert.ThrowsAsync<VirtioFsDeviceException>(
            () => OpenAsync(device, new VirtioFsClientOptions
            {
                Transport = new VirtioFsTransportOptions { SetUpTimeout = TimeSpan.FromSeconds(2) },
            }));
        Assert.Equal(DeviceFailure.NotVirtioFs, exception.Failure);
    }

    [Fact]
    public async Task Cancelling_a_lookup_gives_back_the_node_that_comes_late()
    {
        using var device = new ScriptedDevice((header, arguments) =>
            header.Opcode == FuseOpcode.Lookup ? Answer.Hold : Play("", header, arguments));
        await using VirtioFsClient client = await OpenAsync(device);
        using var cancellation = new CancellationTokenSource();
        Task<FileStatus> status = client.GetStatusAsync("file", cancellationToken: cancellation.Token).AsTask();
        HostileDeviceTests.Until(() => device.Requests.Any(request => request.Header.Opcode == FuseOpcode.Lookup));
        await cancellation.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => status.WaitAsync(s_deadline));

        FuseInHeader lookup = device.Requests.First(request => request.Header.Opcode == FuseOpcode.Lookup).Header;
        HostileDeviceTests.Until(() => device.Requests.Any(
            request => request.Header.Opcode == FuseOpcode.Interrupt
                && MemoryMarshal.Read<ulong>(request.Arguments) == lookup.Unique.Value));
        device.Release(lookup.Unique, header => Answer.Reply(header, Entry(77, FileMode644)));
        HostileDeviceTests.Until(() => device.Requests.Any(
            request => request.Header.Opcode == FuseOpcode.Forget && request.Header.NodeId.Value == 77));
        HostileDeviceTests.Until(() => client.Transport.RentedCalls == 0);
    }

    [Fact]
    public async Task Notifications_end_what_is_cached_and_those_for_unknown_nodes_nothing()
    {
        long size = 5;
        string data = "first";
        using var notified = new Notified((header, arguments) => header.Opcode switch
        {
            FuseOpcode.GetAttr => Answer.Reply(header, new FuseAttrOut { Attributes = Attributes(FileMode644, (ulong)size) }),
            FuseOpcode.Read => Answer.Reply(header, System.Text.Encoding.UTF8.GetBytes(data)),
            _ => Play("", header, arguments),
        });
        await using VirtioFsClient client = await notified.OpenAsync();
        ScriptedDevice device = notified.Device;
        void Notify(FuseNotifyCode code, byte[] payload) => notified.Notify(code, payload);

        int Count(FuseOpcode opcode) => device.Requests.Count(request => request.Header.Opcode == opcode);
        await using VirtioFsFile file = await client.OpenFileAsync("file");
        byte[] bytes = new byte[16];
        Assert.Equal(5, await file.ReadAsync(bytes, 0));

        // Nothing of this is about anything that is cached, or is well-formed.
        Notify(FuseNotifyCode.InvalInode, RawRequests.Bytes(new FuseNotifyInvalInodeOut { NodeId = new NodeId(999) }));
        Notify(FuseNotifyCode.InvalInode, [1, 2, 3]);
        Notify(FuseNotifyCode.InvalEntry, [.. RawRequests.Bytes(new FuseNotifyInvalEntryOut { Parent = new NodeId(999), NameLength = 1 }), 65, 0]);
        Notify(FuseNotifyCode.InvalEntry, [.. RawRequests.Bytes(new FuseNotifyInvalEntryOut { Parent = NodeId.Root, NameLength = 9999 }), 65, 0]);
        Notify((FuseNotifyCode)1234, []);
        Assert.Equal(5, await file.ReadAsync(bytes, 0));
        await client.GetStatusAsync("file");
        Assert.Equal((1, 1, 0), (Count(FuseOpcode.Lookup), Count(FuseOpcode.Read), Count(FuseOpcode.GetAttr)));

        (size, data) = (6, "second");
        Notify(FuseNotifyCode.InvalInode, RawRequests.Bytes(new FuseNotifyInvalInodeOut { NodeId = file.NodeId }));
        Assert.Equal(6, await file.ReadAsync(bytes, 0));
        Assert.Equal(6, (await client.GetStatusAsync("file")).Length);
        Assert.Equal((1, 2, 1), (Count(FuseOpcode.Lookup), Count(FuseOpcode.Read), Count(FuseOpcode.GetAttr)));

        Notify(
            FuseNotifyCode.InvalEntry,
            [.. RawRequests.Bytes(new FuseNotifyInvalEntryOut { Parent = NodeId.Root, NameLength = 4 }), .. "file\0"u8]);
        await client.GetStatusAsync("file");
        Assert.Equal(2, Count(FuseOpcode.Lookup));
        Notify(FuseNotifyCode.IncEpoch, []);
        await client.GetStatusAsync("file");
        Assert.Equal(3, Count(FuseOpcode.Lookup));
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task Cancelling_a_read_through_the_cache_asks_the_device_to_stop(bool stops)
    {
        bool holds = true;
        using var device = new ScriptedDevice((header, arguments) => header.Opcode == FuseOpcode.Read
            ? holds ? Answer.Hold : Answer.Reply(header, "after"u8)
            : Play("", header, arguments));
        await using VirtioFsClient client = await OpenAsync(
            device, new VirtioFsClientOptions { Cache = CacheMode.Always });
        await using VirtioFsFile file = await client.OpenFileAsync("file");
        using var cancellation = new CancellationTokenSource();
        byte[] bytes = new byte[16];
        Task<int> read = file.ReadAsync(bytes, 0, cancellation.Token).AsTask();
        HostileDeviceTests.Until(() => device.Requests.Any(request => request.Header.Opcode == FuseOpcode.Read));
        FuseInHeader sent = device.Requests.First(request => request.Header.Opcode == FuseOpcode.Read).Header;
        await cancellation.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => read.WaitAsync(s_deadline));
        HostileDeviceTests.Until(() => device.Requests.Any(
            request => request.Header.Opcode == FuseOpcode.Interrupt
                && MemoryMarshal.Read<ulong>(request.Arguments) == sent.Unique.Value));

        // Whether or not it listens: its memory is its own until it answers, and the next reader asks anew.
        holds = false;
        Assert.Equal(5, await file.ReadAsync(bytes, 0).AsTask().WaitAsync(s_deadline));
        Assert.Equal("after"u8, bytes.AsSpan(0, 5));
        device.Release(sent.Unique, header => stops
            ? Answer.Reply(header, [], error: -(int)Errno.EINTR)
            : Answer.Reply(header, "before and longer"u8));
        HostileDeviceTests.Until(() => client.Transport.RentedCalls == 0);
        Assert.Equal(5, await file.ReadAsync(bytes, 0));
        Assert.Equal("after"u8, bytes.AsSpan(0, 5));
        HostileDeviceTests.Until(() => client.CacheUsage.DataBytes == 128 << 10);
    }

    [Fact]
    public async Task A_notification_that_overtakes_a_reply_makes_it_too_old_to_be_remembered()
    {
        bool holds = true;
        using var notified = new Notified((header, arguments) => header.Opcode switch
        {
            FuseOpcode.Lookup when holds => Answer.Hold,
            FuseOpcode.Lookup => Answer.Reply(header, Entry(2, FileMode644, size: 6)),
            _ => Play("", header, arguments),
        });
        await using VirtioFsClient client = await notified.OpenAsync();
        ScriptedDevice device = notified.Device;

        // The node is known to the device, and to nobody here yet.
        Task<FileStatus> status = client.GetStatusAsync("file").AsTask();
        HostileDeviceTests.Until(() => device.Requests.Any(request => request.Header.Opcode == FuseOpcode.Lookup));
        FuseInHeader lookup = device.Requests.First(request => request.Header.Opcode == FuseOpcode.Lookup).Header;
        notified.Notify(
            FuseNotifyCode.InvalInode, RawRequests.Bytes(new FuseNotifyInvalInodeOut { NodeId = new NodeId(2), Offset = -1 }));
        holds = false;
        device.Release(lookup.Unique, header => Answer.Reply(header, Entry(2, FileMode644, size: 5)));
        await status.WaitAsync(s_deadline);
        Assert.Equal(6, (await client.GetStatusAsync("file")).Length);
    }

    internal static Task<VirtioFsClient> OpenAsync(ScriptedDevice device, VirtioFsClientOptions? options = null)
    {
        device.Start();
        return VirtioFsClient.OpenAsync(device.DriverSocket, options ?? new VirtioFsClientOptions { Cache = CacheMode.None })
            .AsTask();
    }

    private static async Task ProvokeAsync(VirtioFsClient client, string lie)
    {
        switch (lie)
        {
            case "long WRITE":
                await using (VirtioFsFile file = await client.OpenFileAsync("file", OpenFileOptions.ForWriting))
                {
                    await file.WriteAsync(new byte[10], 0);
                }

                break;
            case "link with a zero byte" or "empty link":
                await client.ReadLinkAsync("link");
                break;
            case "xattr list without an end":
                await client.ListExtendedAttributesAsync("file");
                break;
            case "LSEEK backwards" or "long copy" or "lock that is none":
                await using (VirtioFsFile file = await client.OpenFileAsync(
                    "file", new OpenFileOptions { Access = FileAccess.ReadWrite }))
                {
                    Task task = lie switch
                    {
                        "LSEEK backwards" => file.FindDataAsync(5).AsTask(),
                        "long copy" => file.CopyRangeAsync(0, file, 100, 10).AsTask(),
                        _ => file.FindLockAsync(LockMode.Shared).AsTask(),
                    };
                    await task;
                }

                break;
            case "CREATE of a directory":
                await client.OpenFileAsync(
                    "new", new OpenFileOptions { Mode = System.IO.FileMode.CreateNew, Access = FileAccess.Write });
                break;
            case "node 1" or "no type" or "negative size" or "other type in GETATTR":
                await client.GetStatusAsync("file");
                break;
            default:
                await foreach (DirectoryItem item in client.EnumerateAsync("/"))
                {
                    Assert.NotEmpty(item.Name);
                }

                break;
        }
    }

    internal static Answer Play(string lie, FuseInHeader header, byte[] arguments) => header.Opcode switch
    {
        FuseOpcode.Init => Answer.Reply(
            header,
            lie.StartsWith("lock", StringComparison.Ordinal)
                ? Granted() with { Flags = Granted().Flags | (uint)(FuseFeatures.PosixLocks | FuseFeatures.FlockLocks) }
                : Granted()),
        FuseOpcode.Lookup => Answer.Reply(header, lie switch
        {
            "node 1" => Entry(1, FileMode644),
            "no type" => Entry(2, 0x1A4),
            "negative size" => Entry(2, FileMode644, 1ul << 63),
            "link with a zero byte" or "empty link" => Entry(2, 0xA1FF),
            _ => Entry(2, FileMode644),
        }),
        FuseOpcode.GetAttr => Answer.Reply(header, new FuseAttrOut
        {
            Attributes = Attributes(
                header.NodeId == NodeId.Root || lie == "other type in GETATTR" ? Directory755 : FileMode644, 5),
        }),
        FuseOpcode.Open or FuseOpcode.OpenDir => Answer.Reply(header, default(FuseOpenOut)),
        FuseOpcode.Create => Answer.Reply(header, new FuseCreateOut { Entry = Entry(3, Directory755) }),
        FuseOpcode.Write or FuseOpcode.CopyFileRange => Answer.Reply(header, new FuseWriteOut { Size = 11 }),
        FuseOpcode.Lseek => Answer.Reply(header, new FuseLseekOut { Offset = 4 }),
        FuseOpcode.GetLk => Answer.Reply(header, new FuseLkOut { Type = (FuseLockType)7 }),
        FuseOpcode.ReadLink => Answer.Reply(header, lie == "empty link" ? [] : "a\0b"u8),
        FuseOpcode.ListXattr => Answer.Reply(header, "user.a"u8),
        FuseOpcode.ReadDirPlus => Answer.Reply(header, Listing(lie, MemoryMarshal.Read<FuseReadIn>(arguments).Offset)),
        _ => Answer.Reply(header, []),
    };

    private static byte[] Listing(string lie, ulong offset)
    {
        (byte[] name, uint length) = lie switch
        {
            "name with a slash" => ("a/b"u8.ToArray(), 3u),
            "name with a zero byte" => ("a\0b"u8.ToArray(), 3u),
            "empty name" => ([], 0u),
            "name beyond the end" => ("ab"u8.ToArray(), 200u),
            _ => ("ab"u8.ToArray(), 2u),
        };
        int entry = Unsafe.SizeOf<NodeEntry>();
        byte[] record = new byte[(entry + 24 + name.Length + 7) & ~7];
        if (lie == "listed node 1")
        {
            MemoryMarshal.Write(record, Entry(1, FileMode644));
        }

        MemoryMarshal.Write(record.AsSpan(entry), 5ul);
        MemoryMarshal.Write(record.AsSpan(entry + 8), lie == "listing that stands still" ? 7ul : offset + 1);
        MemoryMarshal.Write(record.AsSpan(entry + 16), length);
        name.CopyTo(record, entry + 24);
        return record;
    }

    private static FuseInitOut Granted() => new()
    {
        Major = 7, Minor = 38, Flags = (uint)(FuseFeatures.DoReadDirPlus | FuseFeatures.AtomicOTrunc), MaxWrite = 1 << 17,
    };

    private static NodeEntry Entry(ulong node, uint mode, ulong size = 5) =>
        new() { NodeId = new NodeId(node), Attributes = Attributes(mode, size) };

    private static FuseAttributes Attributes(uint mode, ulong size) => new() { Mode = mode, Size = size, LinkCount = 1 };

    /// <summary>A device with a notification queue, and a client of it that keeps everything.</summary>
    private sealed class Notified(Func<FuseInHeader, byte[], Answer> play) : IDisposable
    {
        private int _sent;
        private int _handled;

        public ScriptedDevice Device { get; } = new(play)
        {
            QueueCount = 3,
            DeviceFeatures = VirtioFeatures.Version1 | VirtioFeatures.FsNotification,
        };

        public Task<VirtioFsClient> OpenAsync() => HostileClientTests.OpenAsync(Device, new VirtioFsClientOptions
        {
            Cache = CacheMode.Always,
            Transport = new VirtioFsTransportOptions { OnNotification = (_, _) => Interlocked.Increment(ref _handled) },
        });

        /// <summary>Sends a notification and waits until the client has handled it.</summary>
        public void Notify(FuseNotifyCode code, byte[] payload)
        {
            Device.Notify(HostileDeviceTests.Notification((int)code, unique: 0, payload));
            _sent++;
            HostileDeviceTests.Until(() => Volatile.Read(ref _handled) == _sent);
        }

        public void Dispose() => Device.Dispose();
    }
}
