// Every wait here has a deadline of its own, and tasks that use a device end before it does.
#pragma warning disable xUnit1051, xUnit1031, CA2012, CA2025

using System.Collections.Concurrent;
using System.Runtime.InteropServices;
using System.Text;
using Causeway.Driver;
using Causeway.Fuse;
using Causeway.Linux;

namespace Causeway.Tests.Driver;

/// <summary>What was written is kept, goes where it belongs, and nowhere else, whatever happens at the same time.</summary>
public sealed class ClientWriteTests
{
    private static readonly TimeSpan s_deadline = TimeSpan.FromSeconds(60);
    private static readonly OpenFileOptions s_both = new() { Access = FileAccess.ReadWrite };

    private readonly ConcurrentDictionary<ulong, byte[]> _files = new();
    private bool _isHolding;
    private FuseOpcode _held;

    [Fact]
    public async Task Two_clients_that_write_back_under_locks_of_ranges_leave_each_others_bytes_alone()
    {
        // All in one block of what is cached.
        const int part = 1000;
        await using DaxClientRig rig = new();
        File.WriteAllBytes(rig.Host("file"), new byte[128 << 10]);
        byte[] whole = new byte[128 << 10];
        var files = new List<VirtioFsFile>();
        for (int i = 0; i < 2; i++)
        {
            VirtioFsClient client = await rig.ConnectAsync(slots: 0, writes: WriteMode.Back);
            files.Add(await client.OpenFileAsync("file", s_both));
            Assert.Equal(whole.Length, await files[i].ReadAsync(whole, 0));
        }

        // What one writes lies on both sides of what the other does.
        (VirtioFsFile File, int Part)[] places = [(files[0], 0), (files[1], 1), (files[0], 2)];
        for (byte round = 1; round <= 3; round++)
        {
            foreach ((VirtioFsFile file, int number) in places)
            {
                await file.LockAsync(LockMode.Exclusive, number * part, part);
            }

            foreach ((VirtioFsFile file, int number) in places)
            {
                await file.WriteAsync(Filled(part, (byte)(round + (10 * number))), number * part);
            }

            // The one in the middle first: what the other writes later must not reach over it.
            foreach ((VirtioFsFile file, int number) in ((VirtioFsFile, int)[])[places[1], places[0], places[2]])
            {
                await file.UnlockAsync(number * part, part);
            }

            Assert.Equal(
                [.. Filled(part, round), .. Filled(part, (byte)(round + 10)), .. Filled(part, (byte)(round + 20))],
                rig.ReadHost("file", 0, 3 * part));
        }

        foreach (VirtioFsFile file in files)
        {
            await file.DisposeAsync();
        }

        Assert.Equal([.. Filled(part, 3), .. Filled(part, 13), .. Filled(part, 23)], rig.ReadHost("file", 0, 3 * part));
    }

    [Fact]
    public async Task Syncing_reports_what_cannot_be_written_once_and_writes_the_rest()
    {
        using var device = new ScriptedDevice((header, arguments) => header is { Opcode: FuseOpcode.Write, NodeId.Value: 2 }
            ? Answer.Reply(header, [], -(int)Errno.ENOSPC)
            : Play(header, arguments));
        await using VirtioFsClient client = await HostileClientTests.OpenAsync(
            device, new VirtioFsClientOptions { Writes = WriteMode.Back });
        VirtioFsFile bad = await client.OpenFileAsync("2", s_both);
        await using VirtioFsFile good = await client.OpenFileAsync("3", s_both);
        await bad.WriteAsync("lost"u8.ToArray(), 0);
        await good.WriteAsync("kept"u8.ToArray(), 0);
        Assert.DoesNotContain(device.Requests, request => request.Header.Opcode == FuseOpcode.Write);

        VirtioFsException failed = await Assert.ThrowsAsync<VirtioFsException>(async () => await client.SyncFileSystemAsync());

        Assert.Equal((Errno.ENOSPC, "2"), (failed.Error, failed.Path));
        Assert.Equal("kept"u8, _files[3]);
        await client.SyncFileSystemAsync();
        await bad.DisposeAsync();
        Assert.Equal(1, device.Requests.Count(request => request.Header is { Opcode: FuseOpcode.Write, NodeId.Value: 2 }));
    }

    [Fact]
    public async Task What_is_written_while_others_open_the_file_is_not_lost()
    {
        _files[2] = Filled(5000, 1);
        using var device = new ScriptedDevice(Play);
        await using VirtioFsClient client = await HostileClientTests.OpenAsync(
            device, new VirtioFsClientOptions { Writes = WriteMode.Back });
        VirtioFsFile file = await client.OpenFileAsync("2", s_both);

        // The block is read before a part of it is written; meanwhile somebody opens the file, which drops what is cached.
        Hold(FuseOpcode.Read);
        Task writing = file.WriteAsync(Filled(10, 9), 100).AsTask();
        RequestId read = await SentAsync(device, FuseOpcode.Read);
        await using VirtioFsFile other = await client.OpenFileAsync("2");
        device.Release(read, header => Answer.Reply(header, _files[2]));
        await writing.WaitAsync(s_deadline);

        byte[] bytes = new byte[200];
        Assert.Equal(200, await other.ReadAsync(bytes, 0));
        Assert.Equal([.. Filled(100, 1), .. Filled(10, 9), .. Filled(90, 1)], bytes);
        await file.DisposeAsync();
        Assert.Equal([.. Filled(100, 1), .. Filled(10, 9), .. Filled(4890, 1)], _files[2]);
        Assert.Equal(0, client.CacheUsage.DirtyBytes);
    }

    [Fact]
    public async Task A_reply_from_before_a_write_does_not_make_the_file_short_again()
    {
        _files[2] = Filled(5, 1);
        using var device = new ScriptedDevice(Play);
        await using VirtioFsClient client = await HostileClientTests.OpenAsync(
            device, new VirtioFsClientOptions { Writes = WriteMode.Back, Lifetime = TimeSpan.Zero });
        await using VirtioFsFile file = await client.OpenFileAsync("2", s_both);

        // Asked before, answered after. Opening asks for nothing else, and drops what is cached.
        Hold(FuseOpcode.Lookup);
        Task<VirtioFsFile> opening = client.OpenFileAsync("2").AsTask();
        RequestId lookup = await SentAsync(device, FuseOpcode.Lookup);
        await file.WriteAsync(Filled(100, 2), 5);
        await file.FlushAsync();
        device.Release(lookup, header => Answer.Reply(header, Entry(2, size: 5)));
        await using VirtioFsFile other = await opening.WaitAsync(s_deadline);

        // If the file ended at 5, this would be all of it.
        await file.WriteAsync(Filled(50, 3), 0);
        byte[] bytes = new byte[200];
        Assert.Equal(105, await file.ReadAsync(bytes, 0));
        Assert.Equal([.. Filled(50, 3), .. Filled(55, 2)], bytes[..105]);
    }

    [Fact]
    public async Task Renaming_is_tried_once_more_when_names_are_stale_and_not_more_often()
    {
        using var device = new ScriptedDevice((header, arguments) => header.Opcode == FuseOpcode.Rename
            ? Answer.Reply(header, [], -(int)Errno.ESTALE)
            : Play(header, arguments));
        await using VirtioFsClient client = await HostileClientTests.OpenAsync(device, new VirtioFsClientOptions());

        VirtioFsException failed = await Assert.ThrowsAsync<VirtioFsException>(async () => await client.RenameAsync("2", "3"));

        Assert.Equal((Errno.ESTALE, "2"), (failed.Error, failed.Path));
        Assert.Equal(2, device.Requests.Count(request => request.Header.Opcode == FuseOpcode.Rename));
        Assert.Equal(0, client.Transport.RentedCalls);
    }

    private static byte[] Filled(int count, byte value)
    {
        byte[] bytes = new byte[count];
        bytes.AsSpan().Fill(value);
        return bytes;
    }

    private static NodeEntry Entry(ulong node, int size) => new()
    {
        NodeId = new NodeId(node),
        Attributes = new FuseAttributes { Inode = node, Mode = 0x81A4, LinkCount = 1, Size = (ulong)size },
    };

    private void Hold(FuseOpcode opcode)
    {
        _held = opcode;
        Volatile.Write(ref _isHolding, true);
    }

    /// <summary>Waits for the request that is held.</summary>
    private async Task<RequestId> SentAsync(ScriptedDevice device, FuseOpcode opcode)
    {
        await Task.Run(() => HostileDeviceTests.Until(() => !Volatile.Read(ref _isHolding)));
        return device.Requests.Last(request => request.Header.Opcode == opcode).Header.Unique;
    }

    /// <summary>A device with files whose names are the numbers of their nodes.</summary>
    private Answer Play(FuseInHeader header, byte[] arguments)
    {
        if (header.Opcode == _held && Volatile.Read(ref _isHolding))
        {
            Volatile.Write(ref _isHolding, false);
            return Answer.Hold;
        }

        byte[] content = _files.GetValueOrDefault(header.NodeId.Value, []);
        switch (header.Opcode)
        {
            case FuseOpcode.Lookup:
                ulong node = ulong.Parse(Encoding.UTF8.GetString(arguments).TrimEnd('\0'), null);
                return Answer.Reply(header, Entry(node, _files.GetValueOrDefault(node, []).Length));

            case FuseOpcode.GetAttr when header.NodeId != NodeId.Root:
                return Answer.Reply(header, new FuseAttrOut { Attributes = Entry(header.NodeId.Value, content.Length).Attributes });

            case FuseOpcode.Read:
                FuseReadIn read = MemoryMarshal.Read<FuseReadIn>(arguments);
                int start = (int)Math.Min(read.Offset, (ulong)content.Length);
                return Answer.Reply(header, content.AsSpan(start, Math.Min((int)read.Size, content.Length - start)));

            case FuseOpcode.Write:
                FuseWriteIn write = MemoryMarshal.Read<FuseWriteIn>(arguments);
                Array.Resize(ref content, Math.Max(content.Length, (int)(write.Offset + write.Size)));
                arguments.AsSpan(System.Runtime.CompilerServices.Unsafe.SizeOf<FuseWriteIn>(), (int)write.Size)
                    .CopyTo(content.AsSpan((int)write.Offset));
                _files[header.NodeId.Value] = content;
                return Answer.Reply(header, new FuseWriteOut { Size = write.Size });

            default:
                return HostileClientTests.Play("", header, arguments);
        }
    }
}
