// Every wait here has a deadline of its own, and tasks that use a device end before it does.
#pragma warning disable xUnit1051, xUnit1031, CA2012, CA2025

using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Causeway.Driver;
using Causeway.Fuse;
using Causeway.Linux;
using Causeway.Tests.Driver;
using Causeway.VhostUser.Messages;
using Microsoft.Win32.SafeHandles;
using CacheMode = Causeway.Driver.CacheMode;

namespace Causeway.Tests.Coherency;

/// <summary>The coherent client against devices whose table, tags and answers lie.</summary>
public sealed class HostileTableTests : IDisposable
{
    private const FuseFeatures Features = FuseFeatures.InitExt | FuseFeatures.VersionTable;

    private static readonly VersionTableLayout s_layout = new(16, 16, 16, 16);
    private static readonly TimeSpan s_deadline = TimeSpan.FromSeconds(60);

    private readonly SafeFileHandle _table = Memory.CreateMemoryFile(
        "causeway-test\0"u8, (long)s_layout.RegionSize, FileSeals.Shrink);

    public HostileTableTests()
    {
        byte[] header = new byte[VersionTableLayout.HeaderSize];
        s_layout.Write(header);
        header[(int)VersionTableLayout.StateWord * 8] = (byte)VersionTableState.Live;
        header[((int)VersionTableLayout.EpochWord * 8) + 2] = 1;
        RandomAccess.Write(_table, header, 0);
    }

    [Theory]
    [InlineData("the bit without the answer", DeviceFailure.NotVirtioFs)]
    [InlineData("another layout", DeviceFailure.NotVirtioFs)]
    [InlineData("another region", DeviceFailure.NotVirtioFs)]
    [InlineData("not the bit", DeviceFailure.NotSupported)]
    [InlineData("nothing mapped", DeviceFailure.NotSupported)]
    [InlineData("no table", DeviceFailure.NotSupported)]
    [InlineData("no region", DeviceFailure.NotSupported)]
    [InlineData("a file that can shrink", DeviceFailure.NotSupported)]
    public async Task A_device_that_grants_what_it_has_not_is_refused(string lie, DeviceFailure failure)
    {
        using SafeFileHandle loose = Memory.CreateMemoryFile(
            "causeway-test\0"u8, (long)s_layout.RegionSize, FileSeals.None);
        ScriptedDevice? scripted = null;
        using var device = new ScriptedDevice((header, _) =>
        {
            if (lie == "no table")
            {
                RandomAccess.Write(_table, "X"u8, 0);
            }

            if (lie != "nothing mapped")
            {
                Map(scripted!, lie == "a file that can shrink" ? loose : _table);
            }

            FuseInitOut granted = Granted();
            return Answer.Reply(header, lie switch
            {
                "the bit without the answer" => granted with { VersionTableAnswer = 0 },
                "another layout" => granted with { VersionTableAbi = 2 },
                "another region" => granted with { VersionTableRegion = 0 },
                "not the bit" => granted with { Flags2 = 0 },
                _ => granted,
            });
        })
        {
            SharedMemorySizes = lie == "no region" ? [] : [0, s_layout.RegionSize],
        };
        scripted = device;
        VirtioFsDeviceException exception = await Assert.ThrowsAsync<VirtioFsDeviceException>(
            () => OpenAsync(device).WaitAsync(s_deadline));
        Assert.Equal(failure, exception.Failure);
    }

    [Fact]
    public async Task A_reply_too_short_for_its_tags_breaks_the_protocol_and_the_next_one_goes_on()
    {
        bool isShort = true;
        using ScriptedDevice device = Make((header, _) =>
            isShort && header.Opcode == FuseOpcode.Lookup ? Answer.Reply(header, new byte[63]) : Play(header, default));
        await using VirtioFsClient client = await OpenAsync(device);
        VirtioFsDeviceException exception = await Assert.ThrowsAsync<VirtioFsDeviceException>(
            async () => await client.GetStatusAsync("f"));
        Assert.Equal(DeviceFailure.MalformedReply, exception.Failure);
        isShort = false;
        Assert.Equal(5, (await client.GetStatusAsync("f")).Length);
        HostileDeviceTests.Until(() => client.Transport.RentedCalls == 0);
    }

    [Fact]
    public async Task Whatever_table_and_tags_say_the_client_lives_and_forgets()
    {
        var random = new Random(7);
        using ScriptedDevice device = Make((header, _) => Play(header, RandomTags(random)));
        using var writable = MemoryMapping.MapShared(
            _table, 0, s_layout.RegionSize, MemoryProtection.Read | MemoryProtection.Write);
        await using VirtioFsClient client = await OpenAsync(device);
        bool isOver = false;
        var scribbler = new Thread(() =>
        {
            var other = new Random(8);
            while (!Volatile.Read(ref isOver))
            {
                Scribble(writable, other);
            }
        });
        scribbler.Start();
        try
        {
            for (int i = 0; i < 3000; i++)
            {
                string path = i % 3 == 0 ? $"d{i % 40}/f{i % 7}" : $"f{i % 50}";
                try
                {
                    Task call = (i % 4) switch
                    {
                        0 => client.ExistsAsync(path).AsTask(),
                        1 => client.GetStatusAsync(path).AsTask(),
                        2 => client.GetExtendedAttributeAsync(path, "user.x").AsTask(),
                        _ => client.SetPermissionsAsync(path, 0x1FF).AsTask(),
                    };
                    await call.WaitAsync(s_deadline);
                }
                catch (VirtioFsDeviceException exception) when (exception.Failure == DeviceFailure.MalformedReply)
                {
                    // A node that was a directory is a file now.
                }

                Assert.InRange(client.CacheUsage.Names, 0, 16);
            }
        }
        finally
        {
            Volatile.Write(ref isOver, true);
            scribbler.Join();
        }
    }

    public void Dispose() => _table.Dispose();

    private static unsafe void Scribble(MemoryMapping memory, Random random)
    {
        // State and header, too: a table once found sound may be anything later.
        var words = (long*)memory.Address;
        words[random.NextInt64((long)s_layout.RegionSize / 8)] = random.Next(4) switch
        {
            0 => 0,
            1 => random.NextInt64(8) << 16,
            2 => random.NextInt64(),
            _ => -1,
        };
    }

    private static FuseVersionTags RandomTags(Random random)
    {
        FuseVersionTags tags = default;
        Span<byte> bytes = MemoryMarshal.AsBytes(new Span<FuseVersionTags>(ref tags));
        random.NextBytes(bytes);
        if (random.Next(2) == 0)
        {
            // Those that a sound device could send.
            tags.InodeWord = 512 + (2 * (uint)random.Next(16));
            tags.NameWord = (uint)(s_layout.NamesOffset / 8) + (uint)random.Next(16);
            tags.DirectoryWord = 512 + (2 * (uint)random.Next(16));
            tags.Metadata = (ulong)random.Next(8) << 16;
            tags.Content = (ulong)random.Next(8) << 16;
            tags.Name = (ulong)random.Next(8) << 16;
        }

        return tags;
    }

    private static FuseInitOut Granted() => new()
    {
        Major = 7,
        Minor = 38,
        MaxWrite = 1 << 20,
        Flags = (uint)((ulong)Features & uint.MaxValue),
        Flags2 = (uint)((ulong)Features >> 32),
        VersionTableAnswer = VersionTableLayout.InitAnswer,
        VersionTableAbi = VersionTableLayout.Abi,
        VersionTableRegion = VersionTableLayout.RegionId,
    };

    private static Answer Play(FuseInHeader header, FuseVersionTags tags)
    {
        var attributes = new FuseAttributes { Mode = 0x81A4, Size = 5, Inode = header.Unique.Value, LinkCount = 1 };
        if (header.Opcode == FuseOpcode.Lookup && header.NodeId == NodeId.Root && header.Unique.Value % 5 == 0)
        {
            attributes.Mode = 0x41ED;
        }

        return header.Opcode switch
        {
            FuseOpcode.Lookup => Tagged(
                header, tags, new NodeEntry { NodeId = new NodeId(2 + (header.Unique.Value % 60)), Attributes = attributes }),
            FuseOpcode.GetAttr or FuseOpcode.SetAttr => Tagged(header, tags, new FuseAttrOut { Attributes = attributes }),
            FuseOpcode.GetXattr => Tagged(header, tags, 1UL),
            _ => Answer.Reply(header, []),
        };
    }

    private static Answer Tagged<T>(FuseInHeader header, FuseVersionTags tags, T body)
        where T : unmanaged
    {
        byte[] bytes = new byte[FuseVersionTags.Size + Unsafe.SizeOf<T>()];
        MemoryMarshal.Write(bytes, in tags);
        MemoryMarshal.Write(bytes.AsSpan(FuseVersionTags.Size), in body);
        return Answer.Reply(header, bytes);
    }

    private static void Map(ScriptedDevice device, SafeFileHandle file) => device.Channel!.Map(
        new SharedMemoryMapping(VersionTableLayout.RegionId, 0, 0, s_layout.RegionSize, SharedMemoryFlags.None),
        (int)file.DangerousGetHandle());

    private static Task<VirtioFsClient> OpenAsync(ScriptedDevice device)
    {
        device.Start();
        return VirtioFsClient.OpenAsync(
            device.DriverSocket,
            new VirtioFsClientOptions { Cache = CacheMode.Coherent, Dax = DaxMode.Never, MaxCachedNames = 16 }).AsTask();
    }

    // Grants the table, and then does as the script says.
    private ScriptedDevice Make(Func<FuseInHeader, byte[], Answer> script)
    {
        ScriptedDevice? made = null;
        made = new ScriptedDevice((header, arguments) =>
        {
            if (header.Opcode != FuseOpcode.Init)
            {
                return script(header, arguments);
            }

            Map(made!, _table);
            return Answer.Reply(header, Granted());
        })
        {
            SharedMemorySizes = [0, s_layout.RegionSize],
        };
        return made;
    }
}
