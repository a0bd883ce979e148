using System.Reflection;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Causeway.Fuse;

namespace Causeway.Tests.Fuse;

/// <summary>
/// What is written for a guest has no bytes that belong to no field: locals are not cleared, so those would tell the guest what was on
/// the daemon's stack.
/// </summary>
public sealed class WirePaddingTests
{
    [Fact]
    public void Structures_of_the_wire_are_their_fields_and_nothing_else()
    {
        Type[] types =
        [
            .. typeof(FuseOutHeader).Assembly.GetTypes().Where(type =>
                type is { IsValueType: true, IsEnum: false, IsPrimitive: false, IsGenericType: false, Namespace: "Causeway.Fuse" }
                && type.Name.EndsWith("Out", StringComparison.Ordinal)),
            typeof(FuseOutHeader), typeof(FuseAttributes), typeof(FuseStatx), typeof(FuseVersionTags), typeof(NodeEntry),
        ];
        Assert.True(types.Length > 12);
        foreach (Type type in types)
        {
            Assert.True(SizeOf(type) == BytesOfFields(type), $"{type.Name} has {SizeOf(type)} bytes, and fields of {BytesOfFields(type)}");
        }
    }

    private static int SizeOf(Type type) => (int)typeof(Unsafe).GetMethod(nameof(Unsafe.SizeOf))!.MakeGenericMethod(type).Invoke(null, null)!;

    private static int BytesOfFields(Type type)
    {
        if (type.IsPrimitive || type.IsEnum)
        {
            return SizeOf(type);
        }

        if (type.GetCustomAttribute<InlineArrayAttribute>() is { } array)
        {
            return array.Length * type.GetFields(All).Sum(field => BytesOfFields(field.FieldType));
        }

        return type.GetFields(All).Sum(field => field.GetCustomAttribute<FixedBufferAttribute>() is { } buffer
            ? buffer.Length * Marshal.SizeOf(buffer.ElementType)
            : BytesOfFields(field.FieldType));
    }

    private const BindingFlags All = BindingFlags.Instance | BindingFlags.Public | BindingFlags.NonPublic;
}
