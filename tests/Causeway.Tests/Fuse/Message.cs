using System.Buffers.Binary;
using System.Runtime.InteropServices;
using System.Text;
using Causeway.Fuse;

namespace Causeway.Tests.Fuse;

/// <summary>Builds requests byte by byte.</summary>
internal static class Message
{
    public const ulong Unique = 0x1122_3344_5566_7788;

    /// <summary>A request whose header has the right length.</summary>
    public static byte[] Request(FuseOpcode opcode, ulong node, params byte[][] arguments)
    {
        byte[] body = [.. arguments.SelectMany(part => part)];
        FuseInHeader header = new()
        {
            Length = (uint)(40 + body.Length),
            Opcode = opcode,
            Unique = new RequestId(Unique),
            NodeId = new NodeId(node),
            UserId = 1000,
            GroupId = 100,
            ProcessId = 4321,
        };
        return [.. Bytes(header), .. body];
    }

    public static byte[] Bytes<T>(T value)
        where T : unmanaged => MemoryMarshal.AsBytes(new ReadOnlySpan<T>(in value)).ToArray();

    /// <summary>The bytes of a text and a NUL.</summary>
    public static byte[] Name(string name) => [.. Encoding.Latin1.GetBytes(name), 0];

    public static byte[] Init(FuseFeatures offered, uint minor = 46, uint major = 7) => Request(
        FuseOpcode.Init,
        0,
        Bytes(new FuseInitIn
        {
            Major = major,
            Minor = minor,
            MaxReadahead = 0x20000,
            Flags = (uint)offered,
            Flags2 = (uint)((ulong)offered >> 32),
        }));

    /// <summary>A group record of the extension block.</summary>
    public static byte[] Groups(params uint[] groups)
    {
        byte[] record = new byte[(8 + 4 + (4 * groups.Length) + 7) / 8 * 8];
        BinaryPrimitives.WriteInt32LittleEndian(record, record.Length);
        BinaryPrimitives.WriteInt32LittleEndian(record.AsSpan(4), 32);
        BinaryPrimitives.WriteInt32LittleEndian(record.AsSpan(8), groups.Length);
        for (int i = 0; i < groups.Length; i++)
        {
            BinaryPrimitives.WriteUInt32LittleEndian(record.AsSpan(12 + (4 * i)), groups[i]);
        }

        return record;
    }

    /// <summary>A record of the extension block with one security context.</summary>
    public static byte[] SecurityContext(string name, ReadOnlySpan<byte> value)
    {
        byte[] terminated = Name(name);
        byte[] record = new byte[(16 + terminated.Length + value.Length + 7) / 8 * 8];
        BinaryPrimitives.WriteInt32LittleEndian(record, record.Length);
        BinaryPrimitives.WriteInt32LittleEndian(record.AsSpan(4), 1);
        BinaryPrimitives.WriteInt32LittleEndian(record.AsSpan(8), value.Length);
        terminated.CopyTo(record.AsSpan(16));
        value.CopyTo(record.AsSpan(16 + terminated.Length));
        return record;
    }

    /// <summary>A record of the extension block that says that there is no security context.</summary>
    public static byte[] NoSecurityContext() => [8, 0, 0, 0, 0, 0, 0, 0];

    /// <summary>The same request by another number.</summary>
    public static byte[] WithUnique(this byte[] request, ulong unique)
    {
        byte[] changed = [.. request];
        BinaryPrimitives.WriteUInt64LittleEndian(changed.AsSpan(8), unique);
        return changed;
    }

    /// <summary>The same request with another length in its header.</summary>
    public static byte[] WithLength(this byte[] request, uint length)
    {
        byte[] changed = [.. request];
        BinaryPrimitives.WriteUInt32LittleEndian(changed, length);
        return changed;
    }

    /// <summary>The same request with an extension block at its end, announced in its header.</summary>
    public static byte[] WithExtensions(this byte[] request, params byte[][] records)
    {
        byte[] block = [.. records.SelectMany(record => record)];
        byte[] changed = [.. request, .. block];
        BinaryPrimitives.WriteInt32LittleEndian(changed, changed.Length);
        BinaryPrimitives.WriteUInt16LittleEndian(changed.AsSpan(36), (ushort)(block.Length / 8));
        return changed;
    }

    /// <summary>The reply that consists of a header with an errno.</summary>
    public static byte[] ErrorReply(Causeway.Linux.Errno error, ulong unique = Unique) =>
        Bytes(new FuseOutHeader { Length = 16, Error = -(int)error, Unique = new RequestId(unique) });

    /// <summary>A reply with success and a body.</summary>
    public static byte[] Reply(params byte[][] parts)
    {
        byte[] body = [.. parts.SelectMany(part => part)];
        FuseOutHeader header = new() { Length = (uint)(16 + body.Length), Unique = new RequestId(Unique) };
        return [.. Bytes(header), .. body];
    }
}
